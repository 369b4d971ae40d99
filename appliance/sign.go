// sign.go: what `inferd keygen` and `inferd sign` do.
package appliance

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel"
)

const maxKeyFile = 64 << 10

// Keygen writes a new private key (PKCS #8, PEM, readable by this user alone) to path, which must not exist, and returns the public key
// as signature_keys takes it.
func Keygen(path string) (public string, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(path)
		return "", err
	}
	return config.FormatKey(pub), nil
}

// Signed is the outcome of Sign.
type Signed struct {
	Dir   string `json:"dir"`
	Files int    `json:"files"`
	Key   string `json:"key"` // the public one
}

// Sign writes MANIFEST, with the SHA-256 of every file of the version folder, and MANIFEST.sig over it. What was there of them is replaced.
func Sign(dir, keyFile string) (*Signed, error) {
	key, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	if err := savedmodel.CheckPaths(dir); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	m, err := savedmodel.MakeManifest(dir)
	if err != nil {
		return nil, err
	}
	text := m.Encode()
	if len(m) == 0 {
		return nil, fmt.Errorf("%s has no files to sign", dir)
	}
	if err := replaceFile(filepath.Join(dir, savedmodel.ManifestFile), text); err != nil {
		return nil, err
	}
	sig := base64.StdEncoding.EncodeToString(ed25519.Sign(key, text)) + "\n"
	if err := replaceFile(filepath.Join(dir, savedmodel.SignatureFile), []byte(sig)); err != nil {
		return nil, err
	}
	pub, _ := key.Public().(ed25519.PublicKey)
	return &Signed{Dir: dir, Files: len(m), Key: config.FormatKey(pub)}, nil
}

func readKey(path string) (ed25519.PrivateKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key in PEM; make one with: inferd keygen FILE", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key of another kind than ed25519; make one with: inferd keygen FILE", path)
	}
	return key, nil
}

// replaceFile puts content at path, whole or not at all.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".inferd-")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
