// target.go: whom the load is for.
package loadgen

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Values of Options.Protocol.
const (
	REST = "rest"
	GRPC = "grpc"
)

// Target is a model at an address.
type Target struct {
	Address  string // host:port; empty: the caller knows another
	Protocol string // REST or GRPC; empty: not said
	TLS      bool
	Model    string
	Version  int64 // with HasVersion; else the highest that is available
	Label    string

	HasVersion bool
}

// ParseTarget reads a model's name, NAME/VERSION, a URL of TensorFlow Serving's REST (http://host:port/v1/models/NAME[/versions/N][:predict]) or
// grpc://host:port/NAME[/VERSION].
func ParseTarget(text string) (Target, error) {
	var t Target
	path := text
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			return t, fmt.Errorf("%.200q is no URL; write a model's name, or http://host:8501/v1/models/NAME, or grpc://host:8500/NAME", text)
		}
		t.Protocol = REST
		port := "8501"
		switch u.Scheme {
		case "http":
		case "https":
			t.TLS = true
		case "grpc":
			t.Protocol, port = GRPC, "8500"
		case "grpcs":
			t.Protocol, port, t.TLS = GRPC, "8500", true
		default:
			return t, fmt.Errorf("%.200q: write http://, https://, grpc:// or grpcs://", text)
		}
		t.Address = u.Host
		if u.Port() == "" {
			t.Address = net.JoinHostPort(u.Hostname(), port)
		}
		path = strings.TrimPrefix(u.Path, "/")
		if t.Protocol == REST {
			if path, err = restPath(text, path); err != nil {
				return t, err
			}
		}
	}
	name, version, more := strings.Cut(path, "/")
	if more {
		if n, ok := strings.CutPrefix(version, "versions/"); ok {
			version = n
		}
		if l, ok := strings.CutPrefix(version, "labels/"); ok && l != "" {
			t.Label = l
		} else if n, err := strconv.ParseInt(version, 10, 64); err != nil || n < 0 {
			return t, fmt.Errorf("%.200q: %.40q is no version; write a number, as in NAME/3", text, version)
		} else {
			t.Version, t.HasVersion = n, true
		}
	}
	if name == "" {
		return t, fmt.Errorf("%.200q names no model", text)
	}
	t.Model = name
	return t, nil
}

func restPath(text, path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "v1/models/")
	if !ok {
		return "", fmt.Errorf("%.200q: the path of a model is /v1/models/NAME", text)
	}
	if at := strings.LastIndex(rest, ":"); at >= 0 {
		if verb := rest[at+1:]; verb != "predict" {
			return "", fmt.Errorf("%.200q: %.40q cannot be measured; only :predict can", text, verb)
		}
		rest = rest[:at]
	}
	return rest, nil
}

// path is the model's in REST.
func (t Target) path() string {
	p := "/v1/models/" + url.PathEscape(t.Model)
	switch {
	case t.Label != "":
		p += "/labels/" + url.PathEscape(t.Label)
	case t.HasVersion:
		p += "/versions/" + strconv.FormatInt(t.Version, 10)
	}
	return p
}
