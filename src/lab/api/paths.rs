//! The kinds that the API knows, and which of them a URL means.

/// A kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group, empty for the core.
    pub group: &'static str,
    /// Its versions, the preferred one first.
    pub versions: &'static [&'static str],
    /// Plural as in URLs.
    pub plural: &'static str,
    /// Kind as in objects.
    pub kind: &'static str,
    /// Verbs beside get, list and watch.
    pub writable: bool,
}

const fn kind(
    group: &'static str,
    versions: &'static [&'static str],
    plural: &'static str,
    kind: &'static str,
) -> Kind {
    Kind { group, versions, plural, kind, writable: true }
}

/// Every namespaced kind.
pub static KINDS: [Kind; 12] = [
    kind("", &["v1"], "configmaps", "ConfigMap"),
    kind("", &["v1"], "secrets", "Secret"),
    kind("", &["v1"], "services", "Service"),
    kind("", &["v1"], "persistentvolumeclaims", "PersistentVolumeClaim"),
    Kind { writable: false, ..kind("", &["v1"], "pods", "Pod") },
    kind("apps", &["v1"], "deployments", "Deployment"),
    kind("apps", &["v1"], "statefulsets", "StatefulSet"),
    kind("policy", &["v1"], "poddisruptionbudgets", "PodDisruptionBudget"),
    kind("tekton.dev", &["v1", "v1beta1"], "pipelineruns", "PipelineRun"),
    kind("coordination.k8s.io", &["v1"], "leases", "Lease"),
    kind("networking.k8s.io", &["v1"], "ingresses", "Ingress"),
    kind("", &["v1"], "events", "Event"),
];

impl Kind {
    /// Whether it has a `/scale` subresource.
    pub fn scales(&self) -> bool {
        self.group == "apps"
    }

    /// `plural` or `plural.group`, as messages name it.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}

/// `apiVersion` of a group and a version.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// What a URL means.
#[derive(Debug, Clone)]
pub enum Target {
    /// TokenReview, which can only be created.
    TokenReview,
    /// Objects of a kind.
    Objects {
        /// The kind.
        kind: &'static Kind,
        /// The version asked for.
        version: &'static str,
        /// The namespace; `None` = all.
        namespace: Option<String>,
        /// The name; `None` = all.
        name: Option<String>,
        /// `/scale` instead of the object.
        scale: bool,
    },
}

impl Target {
    /// Reads a path (after `/k8s`).
    pub fn parse(path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        if let ("authentication.k8s.io", "v1", ["tokenreviews"]) = (group, version, rest) {
            return Some(Self::TokenReview);
        }
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !namespace.is_empty() => {
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest),
        };
        let (plural, name, scale) = match rest {
            [plural] => (*plural, None, false),
            [plural, name] if namespace.is_some() => (*plural, Some(*name), false),
            [plural, name, "scale"] if namespace.is_some() => (*plural, Some(*name), true),
            _ => return None,
        };
        let kind = KINDS.iter().find(|kind| kind.group == group && kind.plural == plural)?;
        let version = kind.versions.iter().find(|known| **known == version)?;
        if scale && !kind.scales() {
            return None;
        }
        Some(Self::Objects { kind, version, namespace, name: name.map(str::to_owned), scale })
    }
}
