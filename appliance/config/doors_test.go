// doors_test.go: which doors may be open to other machines, and what is said of those that may not.
package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wamuir/graft/tensorflow/serving/config_go_proto"
	"google.golang.org/protobuf/encoding/prototext"
)

func TestOpenDoors(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t)
	ssl := prototext.Format(&config_go_proto.SSLConfig{ServerCert: cert, ServerKey: key, ClientVerify: true, CustomCa: cert})
	for name, text := range map[string]string{"cert.pem": cert, "key.pem": key, "ssl": ssl} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const both, tokens = "{grpc: ':8500', http: '0.0.0.0:8501'", "\naccess: {tokens_file: tokens.yaml}"
	for _, c := range []struct{ name, text, faults, warning string }{
		{"the default", "", "", ""},
		{"loopback", "listen: {grpc: '[::1]:8500', http: 'localhost:8501'}", "", ""},
		{"open", "listen: " + both + "}", "listen.grpc listen.http", ""},
		{"a name", "listen: {http: 'box.lan:8501'}", "listen.http", ""},
		{"one of them", "listen: {http: '192.0.2.1:8501'}", "listen.http", ""},
		{"insecure", "listen: " + both + ", insecure: true}", "", "without authentication"},
		{"tokens", "listen: " + both + "}" + tokens, "", "unencrypted on listen.grpc and listen.http"},
		{"tokens and TLS", "listen: " + both + ", tls: {cert: cert.pem, key: key.pem}}" + tokens, "", ""},
		{"TLS alone", "listen: " + both + ", tls: {cert: cert.pem, key: key.pem}}", "listen.grpc listen.http", ""},
		{"certificates", "listen: " + both + ", tls: {cert: cert.pem, key: key.pem, client_ca: cert.pem}}", "", ""},
		{"certificates for gRPC alone", "listen: " + both + ", tls: {ssl_config_file: ssl}}", "listen.http", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := Parse(filepath.Join(dir, "inferd.yaml"), []byte(c.text), nil)
			var keys []string
			if err != nil {
				for _, f := range err.(Faults) { //nolint:errorlint // Parse says so
					keys = append(keys, f.Key)
					for _, way := range []string{"access.tokens_file", "listen.tls.client_ca", "listen.insecure: true"} {
						if !strings.Contains(f.Msg, way) {
							t.Errorf("%s names no %s", f.Msg, way)
						}
					}
				}
			}
			if got := strings.Join(keys, " "); got != c.faults {
				t.Fatalf("faults %q (%v), want %q", got, err, c.faults)
			}
			if err != nil {
				return
			}
			if got := cfg.OpenWarning(); got == "" != (c.warning == "") || !strings.Contains(got, c.warning) {
				t.Errorf("warning %q, want %q", got, c.warning)
			}
		})
	}
}

// TensorFlow Serving is open to everybody, so its command line starts, and the log says so.
func TestServingStaysOpen(t *testing.T) {
	for _, args := range [][]string{{"--port=8500"}, {"--port=8500", "--access.tokens_file=/t.yaml"}} {
		cfg, _, err := ParseTFServing(append(args, "--model_base_path=/m"))
		if err != nil {
			t.Fatal(err)
		}
		if w := cfg.OpenWarning(); w == "" || len(args) == 2 != strings.Contains(w, "tokens cross") {
			t.Errorf("%v: %q", args, w)
		}
	}
	if _, _, err := ParseTFServing([]string{"--port=8500", "--model_base_path=/m", "--listen.insecure=false"}); err == nil || !strings.Contains(err.Error(), "listen.insecure: true") {
		t.Errorf("closed by its flag: %v", err)
	}
}

func TestAccessAndLimits(t *testing.T) {
	for text, want := range map[string]string{
		"access: {tokens_file: 'http://x/y'}":              "access.tokens_file",
		"access: {operators: no-such-group-here}":          "this machine has no group",
		"limits: {max_header_bytes: 1}":                    "limits.max_header_bytes",
		"limits: {max_streams: 0}":                         "limits.max_streams",
		"limits: {client_connections: -1}":                 "limits.client_connections",
		"limits: {header_timeout: 1ms}":                    "limits.header_timeout",
		"limits: {slow_timeout: 25h}":                      "limits.slow_timeout",
		"limits: {body_timeout: 1s, header_timeout: 1m}":   "limits.body_timeout",
		"limits: {max_connections: 5, max_streams: 1}":     "",
		"access: {tokens_file: t.yaml, operators: 'root'}": "",
	} {
		_, err := Parse("/x/inferd.yaml", []byte(text), nil)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
