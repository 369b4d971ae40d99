// key.go: the request key, out of a call's metadata.
package rpc

import (
	"context"

	"google.golang.org/grpc/metadata"
)

// RequestKey implements inference.Keyed.
func (r *request) RequestKey(header string) string { return requestKey(r.ctx, header) }

// RequestKey implements inference.Keyed.
func (r *exampleRequest) RequestKey(header string) string { return requestKey(r.ctx, header) }

func requestKey(ctx context.Context, header string) string {
	if v := metadata.ValueFromIncomingContext(ctx, header); len(v) > 0 {
		return v[0]
	}
	return ""
}
