// bundleblack.go: taking secrets out of what goes into a support archive.
package appliance

import (
	"bytes"
	"os"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/inferd/inferd/appliance/config"
)

// blackened stands where a secret stood.
const blackened = "(left out)"

// shortSecret is a length from which a text is taken for a secret wherever it is found. Shorter ones would be found in words.
const shortSecret = 12

// secretForms are what looks like a secret, wherever it stands. The last group stays when there is one before what is left out.
var secretForms = []struct {
	kind string
	form *regexp.Regexp
}{
	{"private key", regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`)},
	{"certificate", regexp.MustCompile(`(?s)-----BEGIN CERTIFICATE-----.*?(-----END CERTIFICATE-----|\z)`)},
	{"web token", regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`)},
	{"authorization", regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}`)},
	{"idempotency key", regexp.MustCompile(`(?i)idempotency[-_ ]?key["']?\s*[:=]\s*("[^"]*"|[^\s,;"]+)`)},
	{"password", regexp.MustCompile(`(?i)\b(password|passwd|passphrase|secret|api[-_]?key|access[-_]?token|client[-_]?secret)["']?\s*[:=]\s*("[^"]*"|[^\s,;"]+)`)},
	{"address with a password", regexp.MustCompile(`\b[a-z][a-z0-9+.-]*://[^\s/@:]+:[^\s/@]+@`)},
}

// secretKey is a name whose value is a secret, of a configuration's key or of a variable. Names of files and folders are none.
var (
	secretKey = regexp.MustCompile(`(?i)(token|secret|passw|passphrase|credential|api_?key|private|hash)`)
	placeKey  = regexp.MustCompile(`(?i)_(file|dir|path)s?$`)
)

// blackener leaves out secrets: those that it was told, and what looks like one.
type blackener struct {
	known  [][]byte
	counts map[string]int
}

// newBlackener knows the secrets that the configuration points to, and those in this process's environment.
func newBlackener(cfg *config.Config) *blackener {
	b := &blackener{counts: make(map[string]int)}
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); secretKey.MatchString(name) || strings.HasSuffix(strings.ToUpper(name), "_KEY") {
			b.know(value)
		}
	}
	for _, path := range secretFiles(cfg) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // what cannot be read is in nothing that was
		}
		for line := range strings.Lines(string(text)) {
			for _, word := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n\"'`,;{}[]", r) }) {
				if len(word) >= 24 || len(word) >= shortSecret && strings.ContainsAny(word, "0123456789") { // not a key's name
					b.know(word)
				}
			}
		}
	}
	return b
}

// secretFiles are the files that hold nothing but secrets, found by the names of their keys, so that a key that is added later is not forgotten.
func secretFiles(cfg *config.Config) (paths []string) {
	var tree yaml.Node
	if yaml.Unmarshal(cfg.YAML(), &tree) != nil {
		return nil
	}
	walkScalars(&tree, "", func(key string, v *yaml.Node) {
		last := key[strings.LastIndex(key, ".")+1:]
		if v.Value != "" && (secretKey.MatchString(last) && placeKey.MatchString(last) || strings.HasSuffix(key, ".key") || last == "ssl_config_file") {
			paths = append(paths, v.Value)
		}
	})
	return paths
}

func (b *blackener) know(secret string) {
	if len(secret) >= shortSecret {
		b.known = append(b.known, []byte(secret))
	}
}

// out is text without secrets.
func (b *blackener) out(text []byte) []byte {
	for _, secret := range b.known {
		if n := bytes.Count(text, secret); n > 0 {
			b.counts["known"] += n
			text = bytes.ReplaceAll(text, secret, []byte(blackened))
		}
	}
	for _, s := range secretForms {
		text = s.form.ReplaceAllFunc(text, func([]byte) []byte {
			b.counts[s.kind]++
			return []byte(blackened)
		})
	}
	return text
}

// withoutSecrets is a configuration without the values of keys that are called as secrets are.
func withoutSecrets(text []byte) ([]byte, error) {
	var tree yaml.Node
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return nil, err
	}
	walkScalars(&tree, "", func(key string, v *yaml.Node) {
		for part := range strings.SplitSeq(key, ".") {
			if secretKey.MatchString(part) && !placeKey.MatchString(part) && v.Value != "" {
				v.SetString(blackened)
			}
		}
	})
	return yaml.Marshal(&tree)
}

// walkScalars calls f with each value and the names that lead to it.
func walkScalars(n *yaml.Node, key string, f func(key string, v *yaml.Node)) {
	switch n.Kind {
	case yaml.ScalarNode:
		f(key, n)
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			walkScalars(n.Content[i+1], strings.TrimPrefix(key+"."+n.Content[i].Value, "."), f)
		}
	default:
		for _, in := range n.Content {
			walkScalars(in, key, f)
		}
	}
}
