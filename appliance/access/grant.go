// grant.go: what somebody who was let in may do.
package access

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/inference"
)

// Grant is what its holder may do. A nil Grant may do everything.
type Grant struct {
	// immutable
	name    string
	sum     [sha256.Size]byte
	scopes  Scope
	models  []string // sorted; none: every model
	expires time.Time
	local   bool // of a unix socket's peer

	gone atomic.Bool // the token was removed or changed
}

func grantOf(t *Token) *Grant {
	return &Grant{name: t.Name, sum: t.Sum, scopes: t.Scopes, models: slices.Sorted(slices.Values(t.Models)), expires: t.Expires}
}

// same reports whether the token is what it was.
func (g *Grant) same(o *Grant) bool {
	return g != nil && g.name == o.name && g.sum == o.sum && g.scopes == o.scopes && slices.Equal(g.models, o.models) && g.expires.Equal(o.expires)
}

func (g *Grant) over() bool { return !g.expires.IsZero() && !time.Now().Before(g.expires) }

// Alive reports whether the token is still good: connections that live long ask now and then.
func (g *Grant) Alive() bool { return g == nil || !g.gone.Load() && !g.over() }

// Name is the token's name, "" where there is none.
func (g *Grant) Name() string {
	if g == nil {
		return ""
	}
	return g.name
}

// May says why the holder may not do what one of the scopes would allow, nil when he may. model is what it is for, "" for none in particular.
func (g *Grant) May(any Scope, model string) *inference.Error {
	switch {
	case g == nil || g.scopes&Admin != 0 && g.Alive():
		return nil
	case !g.Alive():
		return &inference.Error{Code: inference.Unauthenticated, Reason: inference.ReasonLogin,
			Msg: "the token was removed or has expired; ask for a new one, which `inferd token add` makes"}
	case g.scopes&any == 0:
		return inference.Errorf(inference.PermissionDenied, inference.ReasonScope, "%s has the scope %s, and this needs %s; `inferd token list` has the scopes, and a token with others is made anew",
			g.who(), strings.Join(g.scopes.Words(), " and "), any|Admin)
	case !g.For(model):
		return inference.Errorf(inference.PermissionDenied, inference.ReasonScope, "%s is not for model %.255s; `inferd token list` has its models, and a token for others is made anew", g.who(), model)
	}
	return nil
}

// For reports whether the holder's models include this one. "" is none in particular.
func (g *Grant) For(model string) bool {
	if g == nil || len(g.models) == 0 || model == "" {
		return true
	}
	_, found := slices.BinarySearch(g.models, model)
	return found
}

func (g *Grant) who() string {
	if g.local {
		return "who comes over this socket and is no operator"
	}
	return fmt.Sprintf("token %s", g.name)
}

// Owns reports whether what belongs to the token of that name is the holder's too. What belongs to none ("") is everybody's who may see its model.
func (g *Grant) Owns(name string) bool {
	return g == nil || name == "" || g.local || g.scopes&Admin != 0 || g.name == name
}
