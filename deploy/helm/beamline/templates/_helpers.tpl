{{- define "beamline.labels" -}}
app.kubernetes.io/name: beamline
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "beamline.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* Environment of every process: the bus by the user of its role, hot state, draining, and what the values add. */ -}}
{{- define "beamline.env" -}}
- name: NATS_URL
  value: {{ .root.Values.nats.url | quote }}
- name: NATS_USER
  value: {{ .user }}
- name: NATS_INBOX_PREFIX
  value: {{ printf "_INBOX_%s" (upper .user) }}
- name: NATS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: password
- name: BEAMLINE_DRAIN_MS
  value: {{ .root.Values.drainMs | int | quote }}
{{- range $name, $value := merge (dict) (.env | default dict) .root.Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
