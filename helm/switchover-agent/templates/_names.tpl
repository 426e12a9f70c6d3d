{{- define "agent.name" -}}{{ .Release.Name }}-switchover{{- end -}}
{{- define "agent.ns" -}}{{ index .root.Values.namespaces .which | default .root.Release.Namespace }}{{- end -}}
{{- define "agent.health" -}}
{{ .Values.objects.health | default (printf "bcgov-health-api-%s-generic-api" .Values.environment) }}
{{- end -}}
{{- define "agent.labels" -}}
app.kubernetes.io/name: switchover-agent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
