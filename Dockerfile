# Two stages: the toolchain builds, the runtime image holds one binary and the CA bundle.
FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src ./src
COPY benches ./benches
RUN cargo build --release --locked --bin switchover-agent

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 10001 -g 10001 /certs
COPY --from=build /src/target/release/switchover-agent /usr/local/bin/switchover-agent
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8000 8765
# The orchestrator's probes ask /health and /ready; there is no shell to run one here.
HEALTHCHECK NONE
ENTRYPOINT ["/usr/local/bin/switchover-agent"]
