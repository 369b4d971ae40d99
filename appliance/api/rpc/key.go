// key.go: the request key, out of a call's metadata.
package rpc

import "google.golang.org/grpc/metadata"

// RequestKey implements inference.Keyed.
func (h *held) RequestKey(header string) string {
	if v := metadata.ValueFromIncomingContext(h.ctx, header); len(v) > 0 {
		return v[0]
	}
	return ""
}
