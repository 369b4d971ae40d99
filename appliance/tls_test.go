// tls_test.go: the doors with TLS: by files that are replaced, by TensorFlow Serving's file, and the unix socket beside them. And the gate's configuration.
package appliance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/inferd/inferd/appliance/config"
)

// certificate is one of its own authority, good for clients too, of that serial number.
func certificate(t *testing.T, serial int64) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// shown is the serial number of the certificate that a port shows to who offers these protocols, and the protocol that was chosen.
func shown(t *testing.T, address string, protocols ...string) (serial int64, protocol string) {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}) //nolint:gosec // the test's own server
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	state := conn.ConnectionState()
	return state.PeerCertificates[0].SerialNumber.Int64(), state.NegotiatedProtocol
}

// healthy asks for the health of the whole, over that connection.
func healthy(t *testing.T, address string, creds credentials.TransportCredentials) error {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	return err
}

var anyServer = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the test's own server

// runSecured runs an appliance without TensorFlow whose ports have certificate 1; cert and key are its files.
func runSecured(t *testing.T, change func(*config.Config)) (s *server, cert, key string) {
	t.Helper()
	s = run(t, testConfig(t, func(cfg *config.Config) {
		dir := filepath.Dir(cfg.StateDir)
		cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		c, k := certificate(t, 1)
		write(t, cert, c)
		write(t, key, k)
		cfg.Listen.TLS = config.TLS{Cert: cert, Key: key}
		change(cfg)
	}))
	return s, cert, key
}

func TestDoorsWithTLS(t *testing.T) {
	s, cert, key := runSecured(t, func(cfg *config.Config) {
		cfg.Listen.GRPCSocket = filepath.Join(filepath.Dir(cfg.StateDir), "grpc.sock")
	})
	overHTTP, overGRPC := strings.TrimPrefix(s.http, "http://"), s.conn.Target()
	for _, c := range []struct{ address, offers, want string }{{overHTTP, "h2", "h2"}, {overHTTP, "http/1.1", "http/1.1"}, {overGRPC, "h2", "h2"}} {
		if serial, protocol := shown(t, c.address, c.offers); serial != 1 || protocol != c.want {
			t.Errorf("certificate %d, protocol %q, want %q", serial, protocol, c.want)
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: anyServer.Clone(), ForceAttemptHTTP2: true}}
	resp, err := client.Get("https://" + overHTTP + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if client.CloseIdleConnections(); resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		t.Errorf("%s, %s", resp.Status, resp.Proto)
	}
	if err := healthy(t, overGRPC, credentials.NewTLS(anyServer)); err != nil {
		t.Error(err)
	}
	if err := healthy(t, overHTTP, credentials.NewTLS(anyServer)); err != nil {
		t.Errorf("gRPC on the HTTP port: %v", err)
	}
	if err := healthy(t, overGRPC, insecure.NewCredentials()); err == nil {
		t.Error("the gRPC port answers without TLS")
	}
	if err := healthy(t, "unix:"+s.cfg.Listen.GRPCSocket, insecure.NewCredentials()); err != nil {
		t.Errorf("the socket: %v", err)
	}

	c, k := certificate(t, 2)
	write(t, cert, c) // without its key
	if serial, _ := shown(t, overHTTP); serial != 1 {
		t.Errorf("certificate %d while its key is another's", serial)
	}
	write(t, key, k)
	for _, address := range []string{overHTTP, overGRPC} {
		if serial, _ := shown(t, address, "h2"); serial != 2 {
			t.Errorf("certificate %d after it was replaced", serial)
		}
	}
}

func TestServingTLS(t *testing.T) {
	mine, mineKey := certificate(t, 1)
	s := run(t, testConfig(t, func(cfg *config.Config) {
		c, k := certificate(t, 3)
		path := filepath.Join(filepath.Dir(cfg.StateDir), "ssl.config")
		write(t, path, fmt.Appendf(nil, "server_cert: %q server_key: %q custom_ca: %q client_verify: true", c, k, mine))
		cfg.Listen.TLS.SSLConfigFile = path
	}))
	pair, err := tls.X509KeyPair(mine, mineKey)
	if err != nil {
		t.Fatal(err)
	}
	known := anyServer.Clone()
	known.Certificates = []tls.Certificate{pair}
	if err := healthy(t, s.conn.Target(), credentials.NewTLS(known)); err != nil {
		t.Error(err)
	}
	if err := healthy(t, s.conn.Target(), credentials.NewTLS(anyServer)); err == nil {
		t.Error("who shows no certificate is answered")
	}
	if code, _ := s.get("/healthz"); code != http.StatusOK { // as in TensorFlow Serving, REST is without
		t.Errorf("REST answers %d", code)
	}
}

func TestNoDoorWithoutItsCertificate(t *testing.T) {
	cfg := testConfig(t, func(cfg *config.Config) {
		cfg.Listen.TLS = config.TLS{Cert: "/nowhere/cert.pem", Key: "/nowhere/key.pem"}
	})
	if _, err := New(cfg, Options{Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "listen.tls.cert: ") {
		t.Errorf("error %v", err)
	}
}

// The gate holds REST and gRPC alike to the configuration, and its refusals are counted.
func TestGateConfiguration(t *testing.T) {
	s := run(t, testConfig(t, func(cfg *config.Config) {
		cfg.Admission.ClientRate, cfg.Admission.ClientBurst = 0.001, 1
	}))
	if code, body := s.post(t, "/v1/models/m:predict"); code != http.StatusNotFound {
		t.Errorf("the first: %d %s", code, body)
	}
	code, body := s.post(t, "/v1/models/m:predict")
	if code != http.StatusTooManyRequests || !strings.Contains(body, "0.001 requests per second") {
		t.Errorf("the second: %d %s", code, body)
	}
	if _, err := s.askGRPC(t.Context(), "m", []float32{1}); err == nil || !strings.Contains(err.Error(), "requests per second") {
		t.Errorf("over gRPC: %v", err)
	}
	if _, metrics := s.get("/metrics"); !strings.Contains(metrics, `inferd_refused_total{protocol="rest",reason="rate"} 1`) ||
		!strings.Contains(metrics, `inferd_refused_total{protocol="grpc",reason="rate"} 1`) {
		t.Error("the refusals are not in the metrics")
	}

	next := *s.cfg
	next.Admission = config.Admission{MaxRequests: 10, Clients: []config.NamedClient{{Name: "tests", Address: "127.0.0.0/8", Weight: 2}}}
	if err := s.apply(t.Context(), &next); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if code, body := s.post(t, "/v1/models/m:predict"); code != http.StatusNotFound {
			t.Errorf("after the reload: %d %s", code, body)
		}
	}
	if clients, _ := s.gate.Report(1); len(clients) != 1 || clients[0].Client != "tests" || clients[0].Weight != 2 {
		t.Errorf("clients %+v", clients)
	}
}

func (s *server) post(t *testing.T, path string) (int, string) {
	t.Helper()
	code, body, err := s.rest(t.Context(), path, `{"instances":[1]}`)
	if err != nil {
		t.Fatal(err)
	}
	return code, string(body)
}
