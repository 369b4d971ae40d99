// access_test.go: tokens, the file that they are in, and what a guard says to those who come.
package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/inferd/inferd/inference"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// made is a file of tokens with these names, each with the scopes and models behind it: "cam: predict m,n".
func made(t testing.TB, path string, lines ...string) (secrets map[string]string) {
	t.Helper()
	secrets = make(map[string]string)
	err := Change(path, "", func([]Token) (tokens []Token, err error) {
		for _, l := range lines {
			words := strings.Fields(l)
			name := strings.TrimSuffix(words[0], ":")
			secrets[name] = NewSecret()
			tok := Token{Name: name, Sum: SumOf(secrets[name]), Created: time.Unix(1e9, 0).UTC()}
			for w := range strings.SplitSeq(words[1], ",") {
				s, err := ParseScope(w)
				if err != nil {
					return nil, err
				}
				tok.Scopes |= s
			}
			if len(words) > 2 {
				tok.Models = strings.Split(words[2], ",")
			}
			tokens = append(tokens, tok)
		}
		return tokens, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return secrets
}

// asked is a request from an address, with an Authorization header where one is given.
func asked(from string, authorization ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = from
	if len(authorization) > 0 {
		r.Header["Authorization"] = authorization
	}
	return r
}

func TestSecretsAndTheirSums(t *testing.T) {
	a, b := NewSecret(), NewSecret()
	if a == b || len(a) != len(secretPrefix)+43 || !goodSecret(a) || strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		t.Errorf("%q and %q", a, b)
	}
	if SumOf(a) != sha256.Sum256([]byte(a)) || SumOf(a) == SumOf(b) {
		t.Error("sums")
	}
}

func TestGuard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	secrets := made(t, path, "cam: predict m,n", "robot: submit", "watch: metrics", "boss: admin")
	g := New(Options{Path: path})
	for _, c := range []struct {
		token string
		scope Scope
		model string
		want  inference.Code
		text  string
	}{
		{"cam", Predict, "m", inference.OK, ""},
		{"cam", Predict, "", inference.OK, ""},
		{"cam", Predict, "other", inference.PermissionDenied, "token cam is not for model other"},
		{"cam", Submit, "m", inference.PermissionDenied, "token cam has the scope predict, and this needs submit or admin"},
		{"cam", Predict | Submit, "n", inference.OK, ""},
		{"robot", Submit, "other", inference.OK, ""},
		{"robot", Metrics, "", inference.PermissionDenied, "needs metrics or admin"},
		{"watch", Metrics, "", inference.OK, ""},
		{"watch", Predict | Submit, "", inference.PermissionDenied, "token watch has the scope metrics"},
		{"boss", Predict, "any", inference.OK, ""},
		{"boss", Admin, "", inference.OK, ""},
		{"robot", Admin, "", inference.PermissionDenied, "needs admin"},
	} {
		grant, err := g.HTTP(asked("192.0.2.1:5", "Bearer "+secrets[c.token]))
		if err != nil || grant.Name() != c.token {
			t.Fatalf("%s: %v, %v", c.token, grant, err)
		}
		got := grant.May(c.scope, c.model)
		if got == nil != (c.want == inference.OK) || got != nil && (got.Code != c.want || !strings.Contains(got.Msg, c.text) || strings.Contains(got.Msg, secrets[c.token])) {
			t.Errorf("%s, %v of %q: %v, want %v %q", c.token, c.scope, c.model, got, c.want, c.text)
		}
	}
	for name, c := range map[string]struct {
		header []string
		want   string
	}{
		"none":         {nil, "the request has none"},
		"basic":        {[]string{"Basic " + secrets["cam"]}, "is not one"},
		"two":          {[]string{"Bearer " + secrets["cam"], "Bearer " + secrets["cam"]}, "is not one"},
		"empty":        {[]string{"Bearer "}, "is not one"},
		"words":        {[]string{"Bearer a b"}, "is not one"},
		"unknown":      {[]string{"Bearer " + NewSecret()}, "not known here"},
		"almost":       {[]string{"Bearer " + secrets["cam"][:len(secrets["cam"])-1]}, "not known here"},
		"the sum":      {[]string{"Bearer " + strings.Repeat("ab", 32)}, "not known here"},
		"far too long": {[]string{"Bearer " + strings.Repeat("a", 5000)}, "not known here"},
	} {
		grant, err := g.HTTP(asked("198.51.100.7:5", c.header...))
		if grant != nil || err == nil || err.Code != inference.Unauthenticated || !strings.Contains(err.Msg, c.want) {
			t.Errorf("%s: %v, %v; want %q", name, grant, err, c.want)
		}
	}
	if grant, err := g.HTTP(asked("192.0.2.1:5", "bearer  "+secrets["cam"]+" ")); err != nil || grant.Name() != "cam" {
		t.Errorf("in other letters: %v", err)
	}
}

func TestNobodyIsAsked(t *testing.T) {
	var g *Guard
	r := asked("192.0.2.1:1", "nonsense")
	grant, err := g.HTTP(r)
	if grant != nil || err != nil || grant.May(Admin, "m") != nil || !grant.For("m") || !grant.Owns("x") || !grant.Alive() || grant.Name() != "" || len(g.Refused()) != 0 {
		t.Errorf("%v, %v", grant, err)
	}
	allocs := testing.AllocsPerRun(100, func() {
		grant, _ := g.HTTP(r)
		if grant.May(Predict, "m") != nil {
			t.Error("refused")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations where nobody is asked", allocs)
	}
}

func TestLettingInAllocatesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	g := New(Options{Path: path})
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	secret := made(t, path, "a: predict m")["a"]
	g.Refresh()
	r := asked("192.0.2.1:1", "Bearer "+secret)
	allocs := testing.AllocsPerRun(100, func() {
		grant, err := g.HTTP(r)
		if err != nil || grant.May(Predict, "m") != nil {
			t.Error("refused")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestTheFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	var logs bytes.Buffer
	g := New(Options{Path: path, Log: slog.New(slog.NewTextHandler(&logs, nil))})
	if err := g.Problem(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	secrets := made(t, path, "a: predict", "b: predict")
	if !g.Refresh() || g.Refresh() || g.Problem() != nil {
		t.Error("the new file")
	}
	a, err := g.HTTP(asked("192.0.2.1:1", "Bearer "+secrets["a"]))
	if err != nil {
		t.Fatal(err)
	}
	b, err := g.HTTP(asked("192.0.2.1:1", "Bearer "+secrets["b"]))
	if err != nil {
		t.Fatal(err)
	}
	edit := func(f func(tokens []Token) []Token) {
		t.Helper()
		if err := Change(path, "", func(tokens []Token) ([]Token, error) { return f(tokens), nil }); err != nil {
			t.Fatal(err)
		}
		if !g.Refresh() {
			t.Fatal("the change was not seen")
		}
	}
	edit(func(tokens []Token) []Token { return tokens[:1] })
	if !a.Alive() || b.Alive() || b.May(Predict, "m") == nil || b.May(Predict, "m").Code != inference.Unauthenticated {
		t.Errorf("a %v, b %v", a.Alive(), b.Alive())
	}
	if _, err := g.HTTP(asked("192.0.2.1:1", "Bearer "+secrets["b"])); err == nil {
		t.Error("the removed token lets in")
	}
	for name, bad := range map[string]string{"no YAML": "tokens: [\n", "not one of ours": "tokens:\n- {name: x, sha256: 12, scopes: [predict]}\n"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if !g.Refresh() || g.Problem() == nil {
			t.Fatalf("%s: %v", name, g.Problem())
		}
		if _, err := g.HTTP(asked("192.0.2.1:1", "Bearer "+secrets["a"])); err != nil || !a.Alive() {
			t.Errorf("%s: the tokens before do not count: %v", name, err)
		}
	}
	if err := os.WriteFile(path, []byte("tokens: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o606); err != nil {
		t.Fatal(err)
	}
	if !g.Refresh() || g.Problem() == nil || !strings.Contains(g.Problem().Error(), "every user") || !a.Alive() {
		t.Errorf("writable by all: %v", g.Problem())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if !g.Refresh() || a.Alive() || !errors.Is(g.Problem(), fs.ErrNotExist) {
		t.Errorf("removed: %v", g.Problem())
	}
	for _, s := range secrets {
		if strings.Contains(logs.String(), s) || !strings.Contains(logs.String(), "tokens refused") {
			t.Errorf("the log:\n%s", &logs)
		}
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "tokens.yaml")
		secret := NewSecret()
		err := Change(path, "", func([]Token) ([]Token, error) {
			return []Token{{Name: "a", Sum: SumOf(secret), Scopes: Predict, Expires: time.Now().Add(time.Hour)}}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		g := New(Options{Path: path})
		grant, bad := g.HTTP(asked("192.0.2.1:1", "Bearer "+secret))
		if bad != nil || !grant.Alive() {
			t.Fatal(bad)
		}
		time.Sleep(time.Hour)
		if _, bad := g.HTTP(asked("192.0.2.1:1", "Bearer "+secret)); bad == nil || !strings.Contains(bad.Msg, "expired") || grant.Alive() {
			t.Errorf("%v, %v", bad, grant.Alive())
		}
	})
}

func TestFailedLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "tokens.yaml")
		secret := made(t, path, "a: predict")["a"]
		var logs bytes.Buffer
		g := New(Options{Path: path, Log: slog.New(slog.NewTextHandler(&logs, nil))})
		fail := func(from string) *inference.Error {
			_, err := g.HTTP(asked(from, "Bearer wrong"))
			return err
		}
		for i := range failBurst {
			if err := fail("192.0.2.1:1"); err.Code != inference.Unauthenticated {
				t.Fatalf("failure %d: %v", i, err)
			}
		}
		err := fail("192.0.2.1:2")
		if err.Code != inference.ResourceExhausted || err.Reason != inference.ReasonRate || err.RetryAfter != failRefill {
			t.Errorf("one too many: %+v", err)
		}
		if _, err := g.HTTP(asked("192.0.2.1:3", "Bearer "+secret)); err != nil {
			t.Errorf("a good token of the same address: %v", err)
		}
		if _, err := g.HTTP(asked("192.0.2.1:3")); err.Code != inference.Unauthenticated {
			t.Errorf("without a token: %v", err)
		}
		if err := fail("192.0.2.2:1"); err.Code != inference.Unauthenticated {
			t.Errorf("another address: %v", err)
		}
		time.Sleep(failRefill)
		if err := fail("192.0.2.1:1"); err.Code != inference.Unauthenticated {
			t.Errorf("after its wait: %v", err)
		}
		if got := g.Refused(); got["unknown"] != failBurst+2 || got["throttled"] != 1 || got["no_token"] != 1 {
			t.Errorf("counted %v", got)
		}
		if n := strings.Count(logs.String(), "login refused"); n != 2 { // one for each address
			t.Errorf("%d lines:\n%s", n, &logs)
		}
	})
}

func TestFailuresAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f failures
		at := netip.MustParseAddr("10.0.0.0")
		for range maxFailing + 100 {
			if wait, _ := f.add(at, time.Now()); wait != 0 && len(f.all) < maxFailing {
				t.Fatal("the first failure of an address is one too many")
			}
			at = at.Next()
		}
		if len(f.all) != maxFailing {
			t.Fatalf("%d addresses", len(f.all))
		}
		if wait, _ := f.add(at, time.Now()); wait == 0 {
			t.Error("those beyond the table are not one")
		}
		time.Sleep(2 * failBurst * failRefill)
		if wait, _ := f.add(at, time.Now()); wait != 0 || len(f.all) != 1 {
			t.Errorf("%d addresses after they were quiet", len(f.all))
		}
		var six failures
		for i := range failBurst + 1 {
			a := netip.MustParseAddr("2001:db8::")
			for range i {
				a = a.Next()
			}
			if wait, _ := six.add(a, time.Now()); (wait > 0) != (i == failBurst) {
				t.Errorf("address %d of a /64: %v", i, wait)
			}
		}
	})
}

func TestChallenge(t *testing.T) {
	for want, c := range map[string]struct {
		e         *inference.Error
		presented bool
	}{
		"":                      {inference.Errorf(inference.NotFound, inference.ReasonModel, "x"), true},
		`Bearer realm="inferd"`: {inference.Errorf(inference.Unauthenticated, inference.ReasonLogin, "x"), false},
		`Bearer realm="inferd", error="invalid_token"`:      {inference.Errorf(inference.Unauthenticated, inference.ReasonLogin, "x"), true},
		`Bearer realm="inferd", error="insufficient_scope"`: {inference.Errorf(inference.PermissionDenied, inference.ReasonScope, "x"), true},
	} {
		if got := Challenge(c.e, c.presented); got != want {
			t.Errorf("%v: %q, want %q", c.e, got, want)
		}
	}
}

func TestPeersOfASocket(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	p, ok := PeerOf(&conn{Conn: far})
	if !ok || int(p.UID) != os.Getuid() || int(p.PID) != os.Getpid() || len(p.Groups) == 0 || int(p.Groups[0]) != os.Getgid() {
		t.Errorf("%+v, %v", p, ok)
	}
	mine, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Groups) != 1+len(mine) {
		t.Errorf("groups %v, want %v too", p.Groups, mine)
	}
	if _, ok := PeerOf(nil); ok {
		t.Error("nobody is a peer")
	}
	g := New(Options{Path: "/nowhere/tokens.yaml"})
	r := asked("@")
	r = r.WithContext(context.WithValue(ConnContext(r.Context(), far), http.LocalAddrContextKey, far.LocalAddr()))
	if grant, err := g.HTTP(r); err != nil || grant.May(Admin, "") != nil { // this process's own user
		t.Errorf("%v, %v", grant, err)
	}
	stranger := Peer{UID: 12345, Groups: []uint32{54321}}
	grant, bad := g.GRPC(nil, far.LocalAddr(), stranger)
	if bad != nil || grant.May(Predict|Submit, "m") != nil || grant.May(Admin, "") == nil || !strings.Contains(grant.May(Admin, "").Msg, "no operator") {
		t.Errorf("a member of the socket's group: %v, %v", grant, bad)
	}
	group := &Operators{group: "ops", gid: 54321}
	if !group.Include(stranger) || (Operators{}).Include(stranger) || !(Operators{}).Include(Peer{UID: 0}) || (Operators{}).Include(Peer{UID: 7, Groups: []uint32{0}}) {
		t.Error("who is an operator")
	}
	if _, err := NewOperators("no-such-group-here"); err == nil {
		t.Error("a group that is not there")
	}
}

func TestTheFile(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		"":           "",
		"tokens: []": "",
		"tokens: [{name: a, sha256: " + sum + ", scopes: [predict, submit], models: [m], created: 2026-01-02T03:04:05Z, expires: 2027-01-02T03:04:05Z}]": "",
		"token: []":                              "is no tokens file, from line 1 on",
		"tokens:\n- {name: a, secret: inferd_x}": "is no tokens file, from line 2 on",
		"tokens: {":                              "is no tokens file",
		"tokens: []\n---\ntokens: []":            "more than one document",
		"tokens: [{name: a, scopes: [predict]}]": "token a: sha256 is not 64 hexadecimal digits",
		"tokens: [{name: 'a b', sha256: " + sum + ", scopes: [predict]}]":                                                                     "token 1: \"a b\" cannot name a token",
		"tokens: [{name: a, sha256: " + sum + ", scopes: []}]":                                                                                "has no scope",
		"tokens: [{name: a, sha256: " + sum + ", scopes: [all]}]":                                                                             `"all" is no scope`,
		"tokens: [{name: a, sha256: " + sum + ", scopes: [admin], models: [m]}]":                                                              "scope admin, which is for every model",
		"tokens: [{name: a, sha256: " + sum + ", scopes: [metrics], models: [m]}]":                                                            "neither predict nor submit",
		"tokens: [{name: a, sha256: " + sum + ", scopes: [predict], models: [m, m]}]":                                                         "given twice",
		"tokens: [{name: a, sha256: " + sum + ", scopes: [predict]}, {name: a, sha256: " + strings.Repeat("cd", 32) + ", scopes: [predict]}]": "is there twice",
		"tokens: [{name: a, sha256: " + sum + ", scopes: [predict]}, {name: b, sha256: " + sum + ", scopes: [predict]}]":                      "same sha256 as a",
		"tokens: [{name: a, sha256: " + strings.Repeat("00", 32) + ", scopes: [predict]}]":                                                    "has no sha256",
		strings.Repeat(" ", MaxFileBytes+1):                                                                                                   "is larger than",
	} {
		_, err := Parse("t.yaml", []byte(text))
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "inferd_x") || strings.Contains(err.Error(), sum)) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}

func TestChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	made(t, path, "a: predict,submit m,n", "b: admin")
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Change(path, "", func(tokens []Token) ([]Token, error) { return tokens, nil }); err != nil {
		t.Fatal(err)
	}
	after, err := ReadFile(path)
	if st, serr := os.Stat(path); err != nil || serr != nil || !reflect.DeepEqual(before, after) || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, %+v and then %+v", err, serr, before, after)
	}
	if err := Change(path, "", func([]Token) ([]Token, error) { return nil, errors.New("no") }); err == nil {
		t.Error("an edit that failed was written")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v lie about, %v", entries, err)
	}
	many := make([]Token, MaxTokens+1)
	if err := Change(path, "", func([]Token) ([]Token, error) { return many, nil }); err == nil {
		t.Error("more tokens than are read")
	}
}

func FuzzTokensFile(f *testing.F) {
	data, err := Format([]Token{{Name: "a", Sum: SumOf("x"), Scopes: Predict | Submit, Models: []string{"m"}, Created: time.Unix(1e9, 0), Expires: time.Unix(2e9, 0)}, {Name: "b", Sum: SumOf("y"), Scopes: Admin}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("tokens:\n- &a {name: x}\n- *a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tokens, err := Parse("f", data)
		if err != nil {
			return
		}
		for i := range tokens {
			if err := tokens[i].Check(); err != nil {
				t.Errorf("%+v: %v", tokens[i], err)
			}
		}
		again, err := Format(tokens)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Parse("f", again); err != nil || len(back) != len(tokens) {
			t.Errorf("%v; of\n%s", err, again)
		}
	})
}

func FuzzAuthorization(f *testing.F) {
	g := New(Options{Path: filepath.Join(f.TempDir(), "none")})
	secret := NewSecret()
	tok := Token{Name: "a", Sum: SumOf(secret), Scopes: Predict}
	g.tokens.Store(&table{tok.Sum: grantOf(&tok)})
	known := make(map[string]bool) // nothing of what was presented is in an answer
	other := New(Options{Path: filepath.Join(f.TempDir(), "none")})
	for i := range 2 * failBurst {
		known[other.refuse(refusal(i%int(throttled)), netip.MustParseAddr("192.0.2.9")).Msg] = true
	}
	if len(known) != len(refusals) {
		f.Fatalf("%d texts", len(known))
	}
	f.Add("Bearer " + secret)
	f.Add("bearer x")
	f.Add("Basic eDp5")
	f.Fuzz(func(t *testing.T, header string) {
		grant, err := g.HTTP(asked("192.0.2.1:1", header))
		if (grant == nil) == (err == nil) {
			t.Fatalf("%v and %v", grant, err)
		}
		if good, ok := ParseBearer(header); grant != nil && (!ok || good != secret) {
			t.Errorf("%q lets in", header)
		}
		if err != nil && !known[err.Msg] {
			t.Errorf("%q is answered with %q, which is none of the fixed texts", header, err.Msg)
		}
	})
}
