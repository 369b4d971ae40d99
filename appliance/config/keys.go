// keys.go: public keys as they stand in the configuration.
package config

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
)

// FormatKey is a public key as signature_keys takes it.
func FormatKey(k ed25519.PublicKey) string { return base64.StdEncoding.EncodeToString(k) }

// ParseKey reads one of signature_keys.
func ParseKey(s string) (ed25519.PublicKey, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%q is not the base64 of an ed25519 public key, which has %d bytes; inferd keygen prints one", shorten(s), ed25519.PublicKeySize)
	}
	return b, nil
}
