// lib.go: opening libtensorflow.
package tfrt

/*
#cgo CFLAGS: -Wall -Wextra -Wno-unused-parameter -O2
#cgo LDFLAGS: -L${SRCDIR}/shim -ltensorflow -ldl
#include <stdlib.h>
#include "lib.h"
#include "tf_c_api.h"
*/
import "C"

import (
	"errors"
	"path/filepath"
	"unsafe"

	_ "github.com/tensorflow/tensorflow/tensorflow/go" // the binding, which the shim also serves
)

// Runtime is the open library. There is at most one per process; the methods may be called from any goroutine.
type Runtime struct {
	path string
}

// Open opens the library at path (see [Find]) and blocks while the loader reads it. Opening the same path again gives the same runtime,
// also where C code opened it before Go ran; another path is an error, for a process can have one TensorFlow. There is no Close: the
// library stays until the process ends.
func Open(path string) (*Runtime, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if why := C.inferd_tf_open(name); why != nil {
		return nil, errors.New("open the TensorFlow runtime: " + C.GoString(why))
	}
	return &Runtime{path: path}, nil
}

// Opened is the runtime that is open in this process, by Go or by C before Go ran; nil when there is none.
func Opened() *Runtime {
	path := C.inferd_tf_path()
	if path == nil {
		return nil
	}
	return &Runtime{path: C.GoString(path)}
}

// Version is TensorFlow's own, "2.20.0".
func (r *Runtime) Version() string { return C.GoString(C.TF_Version()) }

// Path is the library that was opened.
func (r *Runtime) Path() string { return r.path }
