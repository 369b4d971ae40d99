// tls_test.go: the files of TLS, and TensorFlow Serving's own.
package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wamuir/graft/tensorflow/serving/config_go_proto"
	"google.golang.org/protobuf/encoding/prototext"
)

// selfSigned is a certificate and its key in PEM.
func selfSigned(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

func TestTLSFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t)
	_, otherKey := selfSigned(t)
	ssl := func(c *config_go_proto.SSLConfig) string { return prototext.Format(c) }
	for name, text := range map[string]string{"cert.pem": cert, "key.pem": key, "other.pem": otherKey, "text": "no PEM",
		"ssl": ssl(&config_go_proto.SSLConfig{ServerCert: cert, ServerKey: key}), "verify": ssl(&config_go_proto.SSLConfig{ServerCert: cert, ServerKey: key, ClientVerify: true, CustomCa: cert}),
		"system": ssl(&config_go_proto.SSLConfig{ServerCert: cert, ServerKey: key, ClientVerify: true}), "custom": ssl(&config_go_proto.SSLConfig{ServerCert: cert, ServerKey: key, CustomCa: cert}),
		"badca": ssl(&config_go_proto.SSLConfig{ServerCert: cert, ServerKey: key, ClientVerify: true, CustomCa: "x"}), "nokey": ssl(&config_go_proto.SSLConfig{ServerCert: cert}),
		"broken": "server_cert: \"\"\nserver_key: -----SECRET"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ keys, want string }{
		{"cert: cert.pem, key: key.pem", "no client"},
		{"cert: cert.pem, key: key.pem, client_ca: cert.pem", "these"},
		{"ssl_config_file: ssl", "no client"},
		{"ssl_config_file: custom", "no client"},
		{"ssl_config_file: verify", "these"},
		{"ssl_config_file: system", "the system's"},
		{"cert: cert.pem", "inferd.yaml:2: listen.tls: cert and key are both needed"},
		{"client_ca: cert.pem", "inferd.yaml:2: listen.tls: cert and key are both needed"},
		{"cert: none.pem, key: key.pem", "listen.tls.cert: read configuration: open " + dir + "/none.pem: no such file or directory"},
		{"cert: cert.pem, key: other.pem", "private key does not match public key"},
		{"cert: cert.pem, key: key.pem, client_ca: text", "listen.tls.client_ca: " + dir + "/text has no certificate in PEM"},
		{"cert: cert.pem, key: key.pem, ssl_config_file: ssl", "listen.tls.ssl_config_file: stands beside cert, key or client_ca, and only one way can count; leave one of them out"},
		{"ssl_config_file: badca", "custom_ca in " + dir + "/badca has no certificate in PEM"},
		{"ssl_config_file: nokey", "server_cert and server_key in " + dir + "/nokey are no certificate and its key"},
		{"ssl_config_file: broken", "broken is no text proto SSLConfig, from line 2 on"},
	} {
		t.Run(c.keys, func(t *testing.T) {
			cfg, err := Parse(filepath.Join(dir, "inferd.yaml"), []byte("listen:\n  tls: {"+c.keys+"}\n"), nil)
			if err != nil {
				var faults Faults
				if !errors.As(err, &faults) || len(faults) != 1 || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "SECRET") {
					t.Errorf("%v; want %s", err, c.want)
				}
				return
			}
			got, err := cfg.Listen.TLS.Read()
			if err != nil {
				t.Fatal(err)
			}
			who := "no client"
			if got.ClientAuth == tls.RequireAndVerifyClientCert {
				if who = "the system's"; got.ClientCAs != nil {
					who = "these"
				}
			}
			if who != c.want || got.MinVersion != tls.VersionTLS12 || len(got.Certificates) != 1 {
				t.Errorf("%s, want %s; %+v", who, c.want, got.Certificates)
			}
		})
	}
}

func FuzzSSLConfig(f *testing.F) {
	cert, key := selfSigned(f)
	f.Add([]byte(prototext.Format(&config_go_proto.SSLConfig{ServerCert: cert, ServerKey: key, ClientVerify: true, CustomCa: cert})))
	f.Add([]byte("server_key: \"\""))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := parseSSLConfig("f", data); err == nil && (len(c.Certificates) != 1 || c.MinVersion != tls.VersionTLS12) {
			t.Errorf("%+v", c)
		}
	})
}
