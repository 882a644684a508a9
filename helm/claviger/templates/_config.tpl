{{- define "claviger.toml" -}}
{{- include "claviger.checks" . -}}
{{- $config := deepCopy .Values.config -}}
{{- range $section := list "grpc" "http" "store" "sealing" -}}
{{- $_ := set $config $section (dig $section dict $config) -}}
{{- end -}}
{{- $_ := set $config.grpc "listen" "0.0.0.0:50051" -}}
{{- $_ := set $config.http "listen" "0.0.0.0:8080" -}}
{{- $_ := set $config.store "directory" "/var/lib/claviger/store" -}}
{{- $roots := list -}}
{{- range .Values.rootKey.keys -}}
{{- $roots = append $roots (printf "/run/claviger/%s" .) -}}
{{- end -}}
{{- $_ := set $config.sealing "root_keys" $roots -}}
{{- if .Values.tls.existingSecret -}}
{{- $files := dict "certificate_file" "/run/claviger-tls/tls.crt" "private_key_file" "/run/claviger-tls/tls.key" -}}
{{- $_ := set $config.http "tls" $files -}}
{{- with .Values.tls.clientCertificates -}}
{{- $files = merge (dict "client_ca_file" "/run/claviger-tls/ca.crt" "client_certificates" .) $files -}}
{{- end -}}
{{- $_ := set $config.grpc "tls" $files -}}
{{- else -}}
{{- $_ := set $config.grpc "tls" "off" -}}
{{- $_ := set $config.http "tls" "off" -}}
{{- end -}}
{{- range $config.providers -}}
{{- if hasKey $.Values.clientSecrets.providers .id -}}
{{- $_ := set . "client_secret_file" (printf "/run/claviger/provider.%s" .id) -}}
{{- end -}}
{{- end -}}
{{- range $config.identity -}}
{{- if and .sign_in (hasKey $.Values.clientSecrets.signIn .id) -}}
{{- $_ := set .sign_in "client_secret_file" (printf "/run/claviger/sign-in.%s" .id) -}}
{{- end -}}
{{- end -}}
{{- $whole := dict "in" $config -}}
{{- include "claviger.whole" $whole -}}
{{- toToml $whole.out | trim -}}
{{- end -}}

{{- /* Sets `out` to `in` with whole numbers as such: values hold every number as floating point, and TOML tells 100 from 100.0. */ -}}
{{- define "claviger.whole" -}}
{{- if kindIs "map" .in -}}
{{- $map := dict -}}
{{- range $key, $value := .in -}}
{{- $inner := dict "in" $value -}}
{{- include "claviger.whole" $inner -}}
{{- $_ := set $map $key $inner.out -}}
{{- end -}}
{{- $_ := set . "out" $map -}}
{{- else if kindIs "slice" .in -}}
{{- $list := list -}}
{{- range $value := .in -}}
{{- $inner := dict "in" $value -}}
{{- include "claviger.whole" $inner -}}
{{- $list = append $list $inner.out -}}
{{- end -}}
{{- $_ := set . "out" $list -}}
{{- else if and (kindIs "float64" .in) (eq (floor .in) .in) -}}
{{- $_ := set . "out" (int64 .in) -}}
{{- else -}}
{{- $_ := set . "out" .in -}}
{{- end -}}
{{- end -}}
