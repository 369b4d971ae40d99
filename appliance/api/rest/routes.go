// routes.go: which model and which act a path names.
package rest

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/inference"
)

// The acts that a path can name, as they are called in observations.
const (
	actPredict  = "predict"
	actClassify = "classify"
	actRegress  = "regress"
	actStatus   = "status"
	actMetadata = "metadata"
	actHistory  = "history"
	actList     = "list"
)

// route is what a path means.
type route struct {
	act  string
	spec inference.Spec
	job  string // the id of one; then there is no spec

	grant *access.Grant // of who asks, once he was let in
}

// parse reads a path: /v1/models[/NAME][/versions/N|/labels/L] and then :predict, :classify, :regress or :submit for POST, nothing,
// /metadata or (of a model as a whole) /history for GET. Paths of jobs are [parseJob]'s. Words of the API may be in any case.
func parse(r *http.Request) (route, *inference.Error) {
	// RawPath is set only where unescaping Path loses something, an escaped slash or colon among them.
	path, escaped := r.URL.Path, false
	if r.URL.RawPath != "" {
		path, escaped = r.URL.RawPath, true
	}
	if rest, ok := cutWord(path, jobsPath); ok {
		return parseJob(r, rest)
	}
	rest, ok := cutWord(path, "/v1/models")
	if !ok || r.Method != http.MethodPost && r.Method != http.MethodGet {
		return route{}, malformed(r)
	}
	var (
		to             route
		version, label string
	)
	if r.Method == http.MethodPost {
		colon := strings.LastIndexByte(rest, ':')
		if colon < 0 {
			return route{}, malformed(r)
		}
		for _, act := range []string{actPredict, actClassify, actRegress, actSubmit} {
			if strings.EqualFold(rest[colon+1:], act) {
				to.act = act
			}
		}
		if to.act == "" {
			return route{}, malformed(r)
		}
		rest = rest[:colon]
		to.spec.Model, rest = segment(rest)
		if to.spec.Model == "" {
			return route{}, malformed(r)
		}
		if version, label, rest = qualifier(rest); rest != "" {
			return route{}, malformed(r)
		}
	} else if to, version, label, ok = get(rest); !ok {
		return route{}, malformed(r)
	}
	if escaped {
		var err error
		if to.spec.Model, err = url.PathUnescape(to.spec.Model); err != nil {
			return route{}, invalid("Failed to decode model name:%s", to.spec.Model)
		}
		if label, err = url.PathUnescape(label); err != nil {
			return route{}, invalid("Failed to decode model version label:%s", label)
		}
	}
	if version != "" {
		n, err := strconv.ParseInt(version, 10, 64)
		if err != nil {
			return route{}, invalid("Failed to convert version: %s to numeric.", version)
		}
		to.spec.Version, to.spec.HasVersion = n, true
	}
	to.spec.Label = label
	return to, nil
}

// get reads what follows /v1/models in a GET. A name is preferred to everything else that the same text could be.
func get(rest string) (to route, version, label string, ok bool) {
	tail := func(s string) bool {
		version, label, s = qualifier(s)
		if after, cut := cutWord(s, "/metadata"); cut && after == "" {
			to.act = actMetadata
			return true
		}
		if after, cut := cutWord(s, "/history"); cut && after == "" && version == "" && label == "" {
			to.act = actHistory
			return true
		}
		to.act = actStatus
		return s == ""
	}
	if rest == "" {
		to.act = actList
		return to, "", "", true
	}
	name, after := segment(rest)
	if name != "" && tail(after) {
		to.spec.Model = name
		return to, version, label, true
	}
	return to, version, label, tail(rest) // without a name, which is refused later, in other words
}

// segment cuts "/NAME" off the front.
func segment(s string) (name, rest string) {
	if s == "" || s[0] != '/' {
		return "", s
	}
	end := strings.IndexAny(s[1:], "/:")
	if end < 0 {
		return s[1:], ""
	}
	return s[1 : 1+end], s[1+end:]
}

// qualifier cuts "/versions/N" or "/labels/L" off the front, if one is there.
func qualifier(s string) (version, label, rest string) {
	if after, ok := cutWord(s, "/versions"); ok {
		if n, more := segment(after); n != "" && strings.Trim(n, "0123456789") == "" {
			return n, "", more
		}
	}
	if after, ok := cutWord(s, "/labels"); ok {
		if l, more := segment(after); l != "" {
			return "", l, more
		}
	}
	return "", "", s
}

// cutWord cuts a word of the API off the front, in any case.
func cutWord(s, word string) (rest string, ok bool) {
	if len(s) < len(word) || !strings.EqualFold(s[:len(word)], word) {
		return s, false
	}
	return s[len(word):], true
}

func malformed(r *http.Request) *inference.Error {
	return invalid("Malformed request: %s %s", r.Method, r.URL.EscapedPath())
}
