{{- define "agent.name" -}}{{ .Release.Name }}-switchover{{- end -}}
{{- define "agent.ns" -}}{{ index .root.Values.namespaces .which | default .root.Release.Namespace }}{{- end -}}
{{- define "agent.health" -}}
{{ .Values.objects.health | default (printf "bcgov-health-api-%s-generic-api" .Values.environment) }}
{{- end -}}
{{- define "agent.labels" -}}
app.kubernetes.io/name: switchover-agent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
{{/* The processes: what the values name, and geo_sync where it is enabled. */}}
{{- define "agent.processes" -}}
{{- $list := without (compact (splitList "," (toString .Values.env.PROCESS_LIST))) "geo_sync" -}}
{{- if .Values.geo.enabled }}{{ $list = append $list "geo_sync" }}{{ end -}}
{{ join "," $list }}
{{- end -}}
{{/* Not empty where anything but geo_sync runs; no process at all means the agent's default, which is the engine's. */}}
{{- define "agent.site" -}}
{{ if ne (include "agent.processes" .) "geo_sync" }}yes{{ end }}
{{- end -}}
