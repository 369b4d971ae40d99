// zstd.go: the encoding zstd of messages, beside grpc's own gzip.
package rpc

import (
	"io"

	"google.golang.org/grpc/encoding"

	"github.com/inferd/inferd/appliance/api/coding"
)

// grpc knows compressors by one table for the process, which may be written while that initialises and at no other time; its own gzip comes
// in the same way.
func init() { encoding.RegisterCompressor(zstd{}) }

// zstd is an encoding.Compressor.
type zstd struct{}

// Name is what grpc-encoding says.
func (zstd) Name() string { return coding.Zstd }

// Compress implements encoding.Compressor.
func (zstd) Compress(w io.Writer) (io.WriteCloser, error) {
	return coding.NewWriter(coding.Zstd, w), nil
}

// Decompress implements encoding.Compressor. grpc reads one byte more than a message may have, and closes the reader.
func (zstd) Decompress(r io.Reader) (io.Reader, error) { return coding.NewReader(coding.Zstd, r), nil }
