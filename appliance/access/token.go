// token.go: a token: its secret, what is kept of it, and what it may do.
package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Scope is a set of things that a token may do.
type Scope uint8

// The scopes.
const (
	Predict Scope = 1 << iota // predictions, and what a model takes and is
	Submit                    // jobs, durable requests over a stream, and their results
	Metrics                   // the metrics page and the report of admission
	Admin                     // everything, of every model
)

var scopeNames = []struct {
	scope Scope
	name  string
}{{Predict, "predict"}, {Submit, "submit"}, {Metrics, "metrics"}, {Admin, "admin"}}

// ParseScope is the Scope of a word.
func ParseScope(word string) (Scope, error) {
	for _, s := range scopeNames {
		if s.name == word {
			return s.scope, nil
		}
	}
	return 0, fmt.Errorf("%.40q is no scope; write predict, submit, metrics or admin", word)
}

// Words are the names of the scopes in s, in the order of the constants.
func (s Scope) Words() []string {
	var words []string
	for _, n := range scopeNames {
		if s&n.scope != 0 {
			words = append(words, n.name)
		}
	}
	return words
}

// String is the words with "or" between them, for messages that say what would have been enough.
func (s Scope) String() string { return strings.Join(s.Words(), " or ") }

// Token is what is kept of one token.
type Token struct {
	Name    string
	Sum     [sha256.Size]byte // of the secret; it has 256 random bits, so nothing slower than SHA-256 is needed to keep it from being guessed
	Scopes  Scope
	Models  []string  // that Predict and Submit are for; none: every model
	Created time.Time // zero: not said
	Expires time.Time // zero: never
}

// ID is the beginning of the sum, by which a token can be told from another without its secret.
func (t *Token) ID() string { return hex.EncodeToString(t.Sum[:4]) }

// Expired reports whether the token's time is over.
func (t *Token) Expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

const (
	secretBytes = 32
	// secretPrefix lets scanners of repositories and logs find a token that has got there.
	secretPrefix = "inferd_"
	// maxPresented bounds what is taken for a token at all. Files may have sums of tokens that were made elsewhere.
	maxPresented = 256

	maxName   = 64
	maxModels = 1024
	maxModel  = 255
)

// NewSecret is a new token's secret. It consists of letters, digits, - and _ alone, so it fits a header and a WebSocket subprotocol.
func NewSecret() string {
	var b [secretBytes]byte
	_, _ = rand.Read(b[:]) // it never fails: crypto/rand ends the process first
	return secretPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// SumOf is what is kept of a secret.
func SumOf(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }

// Check says what is wrong with the token, nil when nothing is.
func (t *Token) Check() error {
	switch {
	case !goodName(t.Name):
		return fmt.Errorf("%.80q cannot name a token; write 1 to %d letters, digits, dots, - and _", t.Name, maxName)
	case t.Scopes == 0:
		return errors.New("has no scope, so it could do nothing; write predict, submit, metrics or admin")
	case t.Scopes&Admin != 0 && len(t.Models) > 0:
		return errors.New("has the scope admin, which is for every model, and a list of models; leave one of them out")
	case t.Scopes&(Predict|Submit) == 0 && len(t.Models) > 0:
		return errors.New("has a list of models, and neither predict nor submit, which it would be for; leave it out")
	case len(t.Models) > maxModels:
		return fmt.Errorf("has %d models, at most %d are possible", len(t.Models), maxModels)
	case t.Sum == [sha256.Size]byte{}:
		return errors.New("has no sha256")
	}
	for i, m := range t.Models {
		if m == "" || len(m) > maxModel || slices.Contains(t.Models[:i], m) || strings.ContainsFunc(m, func(r rune) bool { return r == '/' || r == ':' || unicode.IsControl(r) || r == unicode.ReplacementChar }) {
			return fmt.Errorf("%.80q cannot name a model, or is given twice", m)
		}
	}
	return nil
}

// goodName reports whether s can name a token. The name begins the names of its sessions and the keys of its jobs, so it has no colon.
func goodName(s string) bool {
	return s != "" && len(s) <= maxName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}
