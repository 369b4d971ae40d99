// Package control is the operators' door: HTTP on a unix socket that the service's own user, its group and root may open. The group reads; what
// changes something is for operators ([access.Operators]), whom the kernel knows.
//
// Invariants:
//  1. Nothing that changes the appliance is reachable elsewhere, but for TensorFlow Serving's HandleReloadConfigRequest, on the gRPC port
//     for the callers that grpc.reload_config names, and the Open Inference Protocol's load and unload, for those that oip.repository names.
//  2. The socket file is replaced only when nobody answers on it: a second daemon says so and ends.
//  3. Status is data ([Status]); the command line turns it into words.
//
// The same socket also carries the REST interface, so that the command line predicts without knowing a port.
package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/inferd/inferd/appliance/access"
)

// Status is the whole appliance at one moment.
type Status struct {
	Version    string      `json:"version"`
	PID        int         `json:"pid"`
	Since      time.Time   `json:"since"`
	Live       bool        `json:"live"`
	Ready      bool        `json:"ready"`
	GRPC       string      `json:"grpc,omitempty"` // the address that is bound
	HTTP       string      `json:"http,omitempty"`
	LastRun    string      `json:"last_run,omitempty"` // how the run before has ended, where somebody watches
	Asks       []string    `json:"asks,omitempty"`     // what the ports ask those who come for
	Runtime    Runtime     `json:"runtime"`
	Conditions []Condition `json:"conditions"`
	Models     []Model     `json:"models"`
}

// Runtime says which TensorFlow runs, or why none does.
type Runtime struct {
	Library   string `json:"library,omitempty"`
	Isolation string `json:"isolation"`
	Sandbox   string `json:"sandbox,omitempty"` // what models are confined with
	Error     string `json:"error,omitempty"`
}

// Condition is something that is not as it should be.
type Condition struct {
	Code     string    `json:"code"`
	Severity string    `json:"severity"`
	Model    string    `json:"model,omitempty"`
	Message  string    `json:"message"`
	Since    time.Time `json:"since"`
}

// Model is one model with every version that is known of it, highest first.
type Model struct {
	Name     string    `json:"name"`
	BasePath string    `json:"base_path"`
	Ready    bool      `json:"ready"`
	Optional bool      `json:"optional,omitempty"`
	Intent   string    `json:"intent,omitempty"`  // of an operator: a pin, a rollback
	Labels   []Label   `json:"labels,omitempty"`  // by name
	Problem  string    `json:"problem,omitempty"` // about the model as a whole: nothing found, wrong folder
	Trial    *Trial    `json:"trial,omitempty"`   // of a version on probation
	Versions []Version `json:"versions"`
}

// Version is one version. Stage is the updater's word for where it stands, State is TensorFlow Serving's.
type Version struct {
	Number  int64     `json:"version"`
	State   string    `json:"state"`
	Stage   string    `json:"stage,omitempty"`
	Message string    `json:"message,omitempty"`
	Since   time.Time `json:"since"`
	Worker  *Worker   `json:"worker,omitempty"` // of a live version
	Proof   *Proof    `json:"proof,omitempty"`  // of a live version

	KeptCopy string `json:"kept_copy,omitempty"` // where its files are kept a second time
}

// Worker is the process behind a live version.
type Worker struct {
	PID          int    `json:"pid"`
	State        string `json:"state"`
	PrivateBytes int64  `json:"private_bytes"`
	Restarts     int    `json:"restarts"`
	Device       string `json:"device,omitempty"` // number of the GPU that it computes on; empty: the CPU
	LastDeath    string `json:"last_death,omitempty"`
	Plan         string `json:"plan,omitempty"` // how TensorFlow is called, where that is not as the model was saved and configured
}

// Options say what the door opens to.
type Options struct {
	Status func() Status
	Rescan func()
	Verbs  Verbs
	// Reload reads the configuration again; by names who asked. Nil: there is no such verb.
	Reload func(ctx context.Context, by string) Reloaded
	Config func() Config // the configuration in force. Nil: there is no such verb
	// UseRuntime changes the runtime; by names who asked. Nil: there is no such verb.
	UseRuntime func(ctx context.Context, version, by string) (string, error)
	Backup     func(ctx context.Context, versions bool) (BackupSource, error) // Nil: there is no such verb
	// Drain takes the appliance out of a load balancer's choice, or puts it back, and says so. Nil: there is no such verb.
	Drain  func(out bool, by string) string
	Tuning Tuning       // nil: there are no such verbs
	Queue  Queue        // nil: there are no such verbs
	REST   http.Handler // everything that is not below /control/
	// Operators are who may do more than read here: every POST below /control/ is theirs, and the profiles. Nil: everybody is one.
	Operators *access.Operators
}

// Handler serves the door.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /control/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(o.Status()) // the client is gone when this fails
	})
	mux.HandleFunc("POST /control/rescan", func(w http.ResponseWriter, _ *http.Request) {
		o.Rescan()
		w.WriteHeader(http.StatusNoContent)
	})
	if o.Verbs != nil {
		handleVerbs(mux, o.Verbs)
	}
	if o.Reload != nil {
		handleReload(mux, o.Reload)
	}
	if o.Config != nil {
		handleConfig(mux, o.Config)
	}
	if o.UseRuntime != nil {
		handleRuntime(mux, o.UseRuntime)
	}
	if o.Backup != nil {
		handleBackup(mux, o.Backup)
	}
	if o.Drain != nil {
		handleDrain(mux, o.Drain)
	}
	if o.Tuning != nil {
		handleTuning(mux, o.Tuning)
	}
	if o.Queue != nil {
		handleQueue(mux, o.Queue)
	}
	handlePprof(mux)
	mux.Handle("/", o.REST)
	if o.Operators == nil {
		return mux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads := (r.Method == http.MethodGet || r.Method == http.MethodHead) && !strings.HasPrefix(r.URL.Path, pprofPath)
		if strings.HasPrefix(r.URL.Path, "/control/") && !reads {
			if p, known := access.PeerFrom(r.Context()); !known || !o.Operators.Include(p) {
				answer(w, http.StatusForbidden, Done{Error: fmt.Sprintf("%s may read and predict over this socket, and change nothing; that is for %v (access.operators names a group)", peer(r.Context()), o.Operators)})
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
}
