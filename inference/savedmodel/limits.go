// limits.go: how much of a directory is read, and the one way in which its files are opened.
package savedmodel

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const (
	maxGraphFile   = 2<<30 - 1 // protobuf's own limit, so TensorFlow cannot read more either
	maxTextFile    = 16 << 20  // a .pbtxt is held whole
	maxNames       = 256 << 20 // names, ops and inputs of a graph, with what Go takes to hold them
	maxName        = 64 << 10  // one node's, function's or file's name
	maxSignatures  = 4 << 20   // all signature_defs of a meta graph; they are held as protos
	maxMetaGraphs  = 1000
	maxTags        = 100
	maxAssets      = 100_000
	maxInitOps     = 1000
	maxIndexFile   = 256 << 20 // variables.index
	maxBlock       = 16 << 20  // one block of it, uncompressed
	maxShards      = 100_000
	maxDepth       = 64 // functions in attributes in functions in attributes
	maxDefaultSize = 4 << 20
)

// openFile opens a regular file and returns its size. Anything else (a FIFO would block for ever) is an error.
func openFile(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// fileSize is the size of a regular file.
func fileSize(path string) (int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() {
		return 0, &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("not a regular file")}
	}
	return st.Size(), nil
}
