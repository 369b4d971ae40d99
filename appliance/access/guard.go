// guard.go: who stands at the door: the tokens in force, and what is said to those who have none.
package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/inference"
)

// Guard asks those who come for their token. A nil Guard asks nobody.
type Guard struct {
	// immutable
	path      string
	operators Operators
	log       *slog.Logger

	tokens   atomic.Pointer[table]
	failures failures
	refused  [len(refusals)]atomic.Int64

	mu    sync.Mutex // of reading the file
	stamp stamp      // guarded by mu; of the file that was tried last
	err   error      // guarded by mu; why that does not count
}

// table is immutable; the sum is the key, so that the time of a look-up says nothing of a secret: who would learn bits of a sum by it cannot make a
// secret that has them.
type table map[[sha256.Size]byte]*Grant

// Options of a Guard.
type Options struct {
	Path      string       // of the tokens file
	Operators Operators    // who may do everything over a unix socket
	Log       *slog.Logger // nil: discard
}

// New reads the tokens file. What is wrong with it, that it is not there among that, is told by Problem: meanwhile nobody is let in by a token.
func New(o Options) *Guard {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	g := &Guard{path: o.Path, operators: o.Operators, log: o.Log.With("component", "access")}
	g.tokens.Store(&table{})
	g.Refresh()
	return g
}

// stamp changes when a file has been written or replaced.
type stamp struct {
	written time.Time
	size    int64
	inode   uint64
	mode    fs.FileMode
	missing bool
}

func stampOf(path string) stamp {
	st, err := os.Stat(path)
	if err != nil {
		return stamp{missing: true}
	}
	return stamp{written: st.ModTime(), size: st.Size(), inode: inode(st), mode: st.Mode()}
}

// Refresh reads the file again if it has changed, and reports whether it tried. Tokens that are the same as before stay in use where they are;
// grants of those that are gone end. A file that is damaged changes nothing; one that was removed takes every token with it.
func (g *Guard) Refresh() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := stampOf(g.path)
	if now == g.stamp {
		return false
	}
	g.stamp = now
	tokens, err := ReadFile(g.path)
	g.err = err
	switch {
	case errors.Is(err, fs.ErrNotExist):
		tokens = nil
	case err != nil:
		g.log.Warn("tokens refused", "path", g.path, "err", err, "instead", "the tokens before stay in force")
		return true
	}
	old := *g.tokens.Load()
	next := make(table, len(tokens))
	for i := range tokens {
		fresh := grantOf(&tokens[i])
		if before := old[tokens[i].Sum]; before.same(fresh) {
			fresh = before
		}
		next[tokens[i].Sum] = fresh
	}
	g.tokens.Store(&next)
	for sum, before := range old {
		if next[sum] != before {
			before.gone.Store(true)
		}
	}
	g.log.Info("tokens read", "path", g.path, "changes", len(next))
	return true
}

// Problem says why the tokens file does not count as it is, nil when it does.
func (g *Guard) Problem() error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// refusal is why somebody was not let in.
type refusal int

const (
	noToken   refusal = iota // the request has none
	malformed                // the header is not Bearer TOKEN
	unknown                  // there is no such token
	expired
	throttled // it came again too soon after that
)

// refusals are the words of metrics and log lines.
var refusals = [...]string{"no_token", "malformed", "unknown", "expired", "throttled"}

// Refused has how many were not let in, by reason.
func (g *Guard) Refused() map[string]int64 {
	out := make(map[string]int64, len(refusals))
	if g == nil {
		return out
	}
	for i, word := range refusals {
		out[word] = g.refused[i].Load()
	}
	return out
}

// BearerProtocol begins the WebSocket subprotocol that carries a token where a client cannot send headers, as browsers cannot.
const BearerProtocol = "inferd.bearer."

// HTTP is what the sender of a request may do, or why he is not let in. Who comes over a unix socket is known by the kernel; every other by the
// Authorization header.
func (g *Guard) HTTP(r *http.Request) (*Grant, *inference.Error) {
	if g == nil {
		return nil, nil
	}
	if local, ok := g.local(r.Context()); ok {
		return local, nil
	}
	grant, why := g.look(r.Header["Authorization"], "")
	if grant != nil {
		return grant, nil
	}
	return nil, g.refuse(why, remote(r))
}

// WebSocket is HTTP for a handshake, whose token may also be a subprotocol among offered.
func (g *Guard) WebSocket(r *http.Request, offered []string) (*Grant, *inference.Error) {
	if g == nil {
		return nil, nil
	}
	if local, ok := g.local(r.Context()); ok {
		return local, nil
	}
	secret := ""
	for _, p := range offered {
		if after, ok := strings.CutPrefix(p, BearerProtocol); ok {
			secret = after
		}
	}
	grant, why := g.look(r.Header["Authorization"], secret)
	if grant != nil {
		return grant, nil
	}
	return nil, g.refuse(why, remote(r))
}

// GRPC is HTTP for a call with these values of the metadata key authorization. from is the other end, and authInfo what its handshake gave: a
// [Peer] of a unix socket.
func (g *Guard) GRPC(values []string, from net.Addr, authInfo any) (*Grant, *inference.Error) {
	if g == nil {
		return nil, nil
	}
	if p, ok := authInfo.(Peer); ok {
		return g.grantPeer(p, true), nil
	}
	grant, why := g.look(values, "")
	if grant != nil {
		return grant, nil
	}
	at, _ := netip.ParseAddrPort(from.String())
	return nil, g.refuse(why, at.Addr())
}

// look finds the grant of what was presented: the Authorization header's values, or a secret from elsewhere.
func (g *Guard) look(values []string, secret string) (*Grant, refusal) {
	switch {
	case len(values) == 0 && secret == "":
		return nil, noToken
	case len(values) > 1 || len(values) == 1 && secret != "":
		return nil, malformed
	case len(values) == 1:
		var ok bool
		if secret, ok = ParseBearer(values[0]); !ok {
			return nil, malformed
		}
	}
	if len(secret) > maxPresented {
		return nil, unknown
	}
	var text [maxPresented]byte // a conversion would be on the heap
	sum := sha256.Sum256(text[:copy(text[:], secret)])
	grant := (*g.tokens.Load())[sum]
	switch {
	case grant == nil || subtle.ConstantTimeCompare(grant.sum[:], sum[:]) != 1:
		return nil, unknown
	case grant.over():
		return nil, expired
	}
	return grant, 0
}

// ParseBearer is the token in the value of an Authorization header.
func ParseBearer(value string) (secret string, ok bool) {
	const scheme = "Bearer "
	if len(value) <= len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return "", false
	}
	secret = strings.Trim(value[len(scheme):], " ")
	return secret, goodSecret(secret)
}

// goodSecret reports whether s can be a token: RFC 6750's b64token, and of a length that is worth hashing.
func goodSecret(s string) bool {
	if s == "" || len(s) > 8<<10 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~+/=", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// refuse counts, and says why.
func (g *Guard) refuse(why refusal, from netip.Addr) *inference.Error {
	wait := time.Duration(0)
	if why != noToken { // who shows none guesses nothing
		var first bool
		if wait, first = g.failures.add(from, time.Now()); first {
			g.log.Warn("login refused", "address", from, "reason", refusals[why])
		}
	}
	if wait > 0 {
		g.refused[throttled].Add(1)
		return &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonRate, RetryAfter: wait,
			Msg: "too many requests from this address came with a token that is not valid here; look at the token, and try again later"}
	}
	g.refused[why].Add(1)
	e := &inference.Error{Code: inference.Unauthenticated, Reason: inference.ReasonLogin}
	switch why {
	case noToken:
		e.Msg = "this inferd answers who has a token, and the request has none; send it as Authorization: Bearer TOKEN (over gRPC in the metadata key authorization); `inferd token add` on its machine makes one"
	case malformed:
		e.Msg = "the Authorization header is not one \"Bearer TOKEN\", so it was not looked up; send the token in that form, once"
	case expired:
		e.Msg = "the token has expired; ask for a new one, which `inferd token add` makes"
	default:
		e.Msg = "the token is not known here (any more); look for a typing error, or ask for a new one, which `inferd token add` makes"
	}
	return e
}

// Challenge is the WWW-Authenticate header for an answer with this error, "" when it takes none.
func Challenge(e *inference.Error, presented bool) string {
	switch {
	case e == nil || e.Reason != inference.ReasonLogin && e.Reason != inference.ReasonScope:
		return ""
	case e.Code == inference.PermissionDenied:
		return `Bearer realm="inferd", error="insufficient_scope"`
	case presented:
		return `Bearer realm="inferd", error="invalid_token"`
	}
	return `Bearer realm="inferd"`
}

type peerKey struct{}

// ConnContext is for an http.Server that serves unix sockets: it finds out who is at the other end.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if p, ok := PeerOf(c); ok {
		return context.WithValue(ctx, peerKey{}, p)
	}
	return ctx
}

// PeerFrom is the peer that ConnContext found.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// local is what a request may do that came over a unix socket.
func (g *Guard) local(ctx context.Context) (*Grant, bool) {
	if _, unix := ctx.Value(http.LocalAddrContextKey).(*net.UnixAddr); !unix {
		return nil, false
	}
	p, known := PeerFrom(ctx)
	return g.grantPeer(p, known), true
}

// Those whom the file mode of a socket has let in.
var (
	operatorGrant = &Grant{scopes: Admin, local: true}
	memberGrant   = &Grant{scopes: Predict | Submit | Metrics, local: true}
)

func (g *Guard) grantPeer(p Peer, known bool) *Grant {
	if known && g.operators.Include(p) {
		return operatorGrant
	}
	return memberGrant
}

func remote(r *http.Request) netip.Addr {
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	return at.Addr()
}

// Explain puts into the headers of a refusal what the client must show, and when it may come again. presented: it has shown something.
func Explain(header http.Header, e *inference.Error, presented bool) {
	if c := Challenge(e, presented); c != "" {
		header.Set("WWW-Authenticate", c)
	}
	if e.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
}
