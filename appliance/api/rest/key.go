// key.go: the request key, out of a request's headers.
package rest

import "net/http"

// keys are a request's headers, without the cost of a look into them.
type keys http.Header

// RequestKey implements inference.Keyed.
func (k keys) RequestKey(header string) string { return http.Header(k).Get(header) }
