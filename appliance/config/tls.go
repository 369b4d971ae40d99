// tls.go: the certificates of the doors, read from their files.
package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/wamuir/graft/tensorflow/serving/config_go_proto"
)

// TLS names the files. They may be replaced while inferd runs.
type TLS struct {
	Cert          string `yaml:"cert" doc:"PEM file with the certificate of the HTTP and the gRPC port, and those between it and its authority. Empty: the ports speak without TLS. The file may be replaced at any time; new connections then have the new certificate."`
	Key           string `yaml:"key" doc:"PEM file with the private key of cert."`
	ClientCA      string `yaml:"client_ca" doc:"PEM file with the authorities whose certificates clients must show. Empty: clients need none."`
	SSLConfigFile string `yaml:"ssl_config_file" doc:"TensorFlow Serving's file, a text proto SSLConfig that holds the PEM texts themselves, for the gRPC port alone, in place of the keys above."`
}

// Set reports whether a door has TLS: gRPC's by either way, HTTP's by files alone.
func (t *TLS) Set() (http, grpc bool) {
	files := t.Cert != "" || t.Key != "" || t.ClientCA != ""
	return files, files || t.SSLConfigFile != ""
}

// Files are what Read reads.
func (t *TLS) Files() (names []string) {
	for _, name := range []string{t.Cert, t.Key, t.ClientCA, t.SSLConfigFile} {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Read is the server's side of TLS 1.2 and later, as the files say now. It is not called without a file. The error is one sentence that begins with
// the key, below listen.tls, whose file is at fault.
func (t *TLS) Read() (*tls.Config, error) {
	c, key, err := t.read()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return c, nil
}

func (t *TLS) read() (c *tls.Config, key string, err error) {
	if t.SSLConfigFile != "" {
		c, err = readSSLConfig(t.SSLConfigFile)
		return c, "ssl_config_file", err
	}
	cert, err := readFile(t.Cert)
	if err != nil {
		return nil, "cert", err
	}
	private, err := readFile(t.Key)
	if err != nil {
		return nil, "key", err
	}
	var ca []byte
	if t.ClientCA != "" {
		if ca, err = readFile(t.ClientCA); err != nil {
			return nil, "client_ca", err
		}
	}
	if c, err = serverTLS(cert, private); err != nil {
		return nil, "cert", fmt.Errorf("%s and %s are no certificate and its key: %w", t.Cert, t.Key, err)
	}
	if t.ClientCA == "" {
		return c, "", nil
	}
	if c.ClientCAs = pool(ca); c.ClientCAs == nil {
		return nil, "client_ca", fmt.Errorf("%s has no certificate in PEM", t.ClientCA)
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, "", nil
}

func serverTLS(cert, key []byte) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

func pool(pem []byte) *x509.CertPool {
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		return nil
	}
	return p
}

// readSSLConfig does with the file what TensorFlow Serving does: custom_ca counts where client_verify is set, and where it is empty the
// system's authorities do.
func readSSLConfig(name string) (*tls.Config, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	return parseSSLConfig(name, data)
}

func parseSSLConfig(name string, data []byte) (*tls.Config, error) {
	p := &config_go_proto.SSLConfig{}
	if faults := parseText(name, data, p); faults != nil {
		return nil, fmt.Errorf("%s is no text proto SSLConfig, from line %d on", name, faults[0].Line) // what is there may be the key
	}
	c, err := serverTLS([]byte(p.GetServerCert()), []byte(p.GetServerKey()))
	if err != nil {
		return nil, fmt.Errorf("server_cert and server_key in %s are no certificate and its key: %w", name, err)
	}
	if p.GetClientVerify() {
		c.ClientAuth = tls.RequireAndVerifyClientCert
		if ca := p.GetCustomCa(); ca != "" {
			if c.ClientCAs = pool([]byte(ca)); c.ClientCAs == nil {
				return nil, fmt.Errorf("custom_ca in %s has no certificate in PEM", name)
			}
		}
	}
	return c, nil
}

func (c *checker) tls(t *TLS) {
	before := len(c.faults)
	c.dir("listen.tls.cert", t.Cert)
	c.dir("listen.tls.key", t.Key)
	c.dir("listen.tls.client_ca", t.ClientCA)
	c.dir("listen.tls.ssl_config_file", t.SSLConfigFile)
	files, secure := t.Set()
	switch {
	case !secure || len(c.faults) > before:
		return
	case files && t.SSLConfigFile != "":
		c.addf("listen.tls.ssl_config_file", "stands beside cert, key or client_ca, and only one way can count; leave one of them out")
		return
	case files && (t.Cert == "" || t.Key == ""):
		c.addf("listen.tls", "cert and key are both needed")
		return
	}
	if _, key, err := t.read(); err != nil {
		c.addf("listen.tls."+key, "%v", err)
	}
}
