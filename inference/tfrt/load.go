// load.go: a SavedModel directory becomes a Model.
package tfrt

/*
#include <stdlib.h>
#include "tf_c_api.h"
*/
import "C"

import (
	"fmt"
	"reflect"
	"runtime"
	"unsafe"

	tf "github.com/tensorflow/tensorflow/tensorflow/go"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/inference"
)

// NoDevices as Options.VisibleDevices hides every GPU from the model.
const NoDevices = "none"

// Options say how a model is loaded and run. The zero value is right for a CPU worker.
//
// TensorFlow sizes its pools once per process, from the first model loaded: with several models in one process (isolation none) the thread
// numbers of the later ones are ignored by it.
type Options struct {
	// Tags choose the meta graph; empty means "serve".
	Tags []string
	// IntraOpThreads is the number of threads that one kernel may use; 0 means 1.
	IntraOpThreads int
	// InterOpThreads, when above 0, runs the graph on a pool of TensorFlow's own with so many threads. 0 runs it in the calling thread,
	// which is the faster way for as many callers as cores.
	InterOpThreads int
	// SingleThreaded runs the graph with TensorFlow's executor for one thread, which does less for each operation. It knows no control flow of
	// TensorFlow 1 (Switch, Merge): then the load or the run fails.
	SingleThreaded bool
	// BFloat16 lets matrices be multiplied in bfloat16 on a CPU whose oneDNN has it. The numbers that come out are others.
	BFloat16 bool
	// Slots is the number of runs that Model.Run lets happen at once; 0 means GOMAXPROCS.
	Slots int
	// GPUGrowth takes device memory as it is needed, rather than all of it at once.
	GPUGrowth bool
	// GPUMemoryFraction is the share of a device's memory that may be taken, 0 to 1; 0 leaves it to TensorFlow.
	GPUMemoryFraction float64
	// VisibleDevices is TensorFlow's list of GPU numbers, "0,1"; empty means all, NoDevices none.
	VisibleDevices string
	// Gently says that the calling thread has low priority. The threads that the model is run with later are made on another one, and what
	// the load does itself is done in the calling thread.
	Gently bool
	// Freeze makes constants of the variables after the load, so that TensorFlow can fold them, where that can be done and the answers stay
	// what they are: see [Model.Frozen]. It needs Signatures, and the model answers no others then. The load takes longer, and the first run of
	// the frozen graph took up to sixteen times the memory of the variables (ResNet50); afterwards the constants take three times what the
	// variables took, once more for each further signature.
	Freeze     bool
	Signatures map[string]*inference.Signature
	// Compared says that the caller compares the answers of the frozen model with those as saved, or has done so; else the load does, on made-up
	// inputs. It makes no run then, which spares TensorFlow's preparing of the graph as saved.
	Compared bool
}

// config is the ConfigProto. Soft placement lets a model that names a GPU run where there is none.
func (o Options) config() ([]byte, error) {
	c := &pb.ConfigProto{
		IntraOpParallelismThreads: int32(max(1, o.IntraOpThreads)),
		InterOpParallelismThreads: int32(o.InterOpThreads),
		AllowSoftPlacement:        true,
		GpuOptions: &pb.GPUOptions{
			AllowGrowth:                 o.GPUGrowth,
			PerProcessGpuMemoryFraction: o.GPUMemoryFraction,
			VisibleDeviceList:           o.VisibleDevices,
		},
	}
	if o.InterOpThreads <= 0 {
		// Also for the runs that the load makes, to restore the variables: RunOptions are for ours only.
		c.InterOpParallelismThreads = -1
	}
	if o.SingleThreaded {
		c.Experimental = &pb.ConfigProto_Experimental{ExecutorType: "SINGLE_THREADED_EXECUTOR"}
	}
	if o.BFloat16 {
		c.GraphOptions = &pb.GraphOptions{RewriteOptions: &pb.RewriterConfig{AutoMixedPrecisionOnednnBfloat16: pb.RewriterConfig_ON}}
	}
	if o.VisibleDevices == NoDevices {
		c.GpuOptions.VisibleDeviceList = ""
		c.DeviceCount = map[string]int32{"GPU": 0}
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(c)
}

// runOptions is the RunOptions: nil where TensorFlow's pool runs the graph. There is no deadline in it, because none works: TensorFlow
// ignores timeout_in_ms in the calling thread, and elsewhere reports it no sooner than the run would have ended.
func (o Options) runOptions() ([]byte, error) {
	if o.InterOpThreads > 0 {
		return nil, nil
	}
	return proto.Marshal(&pb.RunOptions{InterOpThreadPool: -1})
}

// Load loads the SavedModel in dir and restores its variables. It blocks for as long as that takes and cannot be cancelled. TensorFlow's
// error has its own code and text. A model that loaded is not proven: only a run is. That it could not be frozen is no error.
func (r *Runtime) Load(dir string, opts Options) (*Model, error) {
	m, err := r.loadSaved(dir, opts)
	if err != nil || !opts.Freeze {
		return m, err
	}
	return r.freeze(m, dir, opts)
}

func (r *Runtime) loadSaved(dir string, opts Options) (*Model, error) {
	config, err := opts.config()
	if err != nil {
		return nil, err
	}
	run, err := opts.runOptions()
	if err != nil {
		return nil, err
	}
	tags := opts.Tags
	if len(tags) == 0 {
		tags = []string{"serve"}
	}
	if opts.Gently {
		if err := makePools(config); err != nil {
			return nil, err
		}
	}
	saved, err := tf.LoadSavedModel(dir, tags, &tf.SessionOptions{Config: config})
	if err != nil {
		return nil, loadError(dir, err)
	}
	graph, err := handle(saved.Graph, "c")
	if err != nil {
		return nil, err
	}
	session, err := handle(saved.Session, "c")
	if err != nil {
		return nil, err
	}
	slots := opts.Slots
	if slots <= 0 {
		slots = runtime.GOMAXPROCS(0)
	}
	m := &Model{
		saved:   saved,
		graph:   (*C.TF_Graph)(graph),
		session: (*C.TF_Session)(session),
		slots:   make(chan struct{}, slots),
		entries: make(map[*inference.Signature]*entry),
	}
	if len(run) > 0 {
		m.options = C.TF_NewBufferFromString(unsafe.Pointer(unsafe.SliceData(run)), C.size_t(len(run)))
	}
	return m, nil
}

// handle reads the C pointer in an unexported field of one of the binding's types. It is an error, not a panic, where a binding of another
// version has none.
func handle(v any, field string) (unsafe.Pointer, error) {
	r := reflect.ValueOf(v)
	if r.Kind() == reflect.Pointer && !r.IsNil() && r.Elem().Kind() == reflect.Struct {
		if f := r.Elem().FieldByName(field); f.IsValid() && f.Kind() == reflect.Pointer && !f.IsNil() {
			return f.UnsafePointer(), nil
		}
	}
	return nil, fmt.Errorf("the TensorFlow binding's %T has no pointer %q; inferd was built against v2.11.0", v, field)
}

// loadError gives the binding's error TensorFlow's code, which only its C status has.
func loadError(dir string, err error) error {
	code := inference.Unknown
	if status, e := handle(err, "c"); e == nil {
		code = codeOf(C.TF_GetCode((*C.TF_Status)(status)))
		runtime.KeepAlive(err)
	}
	return &inference.Error{Code: code, Reason: inference.ReasonRuntime, Msg: err.Error(), Err: fmt.Errorf("load %s", dir)}
}

// codeOf maps TensorFlow's code, which is google.rpc's, and anything beyond them to UNKNOWN.
func codeOf(c C.TF_Code) inference.Code {
	if c < 0 || inference.Code(c) > inference.Unauthenticated {
		return inference.Unknown
	}
	return inference.Code(c)
}
