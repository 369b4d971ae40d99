// condition.go: what can be wrong, as data.
package health

import (
	"cmp"
	"time"
)

// Severity is what a condition means for those who ask whether to send requests, or whether to start the appliance anew.
type Severity int

// The severities, mildest first.
const (
	Info    Severity = iota + 1 // worth knowing
	Warning                     // degraded, but serving
	Unready                     // requests are better sent elsewhere: not ready while it lasts
	Dead                        // the process cannot work any more and should be started anew: not live while it lasts
)

// String is the severity's word.
func (s Severity) String() string {
	switch s {
	case Info:
		return "info"
	case Warning:
		return "warning"
	case Unready:
		return "unready"
	case Dead:
		return "dead"
	default:
		return "unknown"
	}
}

// MarshalText makes the word the JSON form.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Codes of conditions that several parts know by name. The list is open.
const (
	CodeRuntime       = "runtime_missing" // no TensorFlow runtime could be opened
	CodeDraining      = "draining"        // the appliance is stopping
	CodeScanning      = "scanning"        // the base paths have not all been looked at yet
	CodeVerdict       = "first_verdict"   // a model has had no first verdict yet
	CodeNoLive        = "no_live_version" // a model has no version that answers
	CodeJournal       = "journal"         // what happens is not remembered over a restart
	CodeBasePath      = "base_path"       // a base path is missing, unreadable or holds something else
	CodeRefused       = "version_refused" // a version was refused, whatever serves goes on
	CodeDisk          = "disk_crowded"    // versions that are not served fill the disk
	CodeWatch         = "watch"           // changes are found by polling alone
	CodeLabels        = "labels_held"     // labels whose versions are not available
	CodeReload        = "reload_refused"  // the configuration was read again and refused, the one before stays in force
	CodeRestart       = "restart_needed"  // settings in the configuration wait for a restart
	CodeTrial         = "probation"       // a version is watched, or was found bad with nothing to go back to
	CodeMemory        = "memory"          // a version waits for memory
	CodePressure      = "memory_pressure" // memory is short: nothing is loaded, idle versions are parked
	CodeDiskFloor     = "disk_floor"      // less disk space is free than the floor: nothing durable is begun
	CodeQueue         = "queue"           // jobs are not taken, were lost, or do not expire
	CodeRequestLog    = "request_log"     // records of requests are lost to the disk
	CodeSafeStart     = "safe_start"      // the last lives were short: only what was good before is loaded
	CodeSocket        = "socket"          // a socket that systemd holds has another address than the configuration
	CodeGPU           = "gpu_unused"      // a model, or every one, computes on the CPU although the machine has a GPU
	CodeRuntimeChoice = "runtime"         // another runtime is used than was chosen, or one was tried and is not used
	CodeDrained       = "drained"         // an operator has taken it out of a load balancer's choice
	CodeSandbox       = "sandbox"         // models are not confined, or not wholly
	CodeAccess        = "access"          // the tokens file cannot be read, or is damaged
)

// Condition is one thing that is so at the moment. Code and Model identify it.
type Condition struct {
	Code     string    `json:"code"`
	Model    string    `json:"model,omitempty"` // empty for the appliance as a whole
	Severity Severity  `json:"severity"`
	Since    time.Time `json:"since"`
	Message  string    `json:"message"`
}

// compare orders the worst first, then by model and code.
func (c Condition) compare(o Condition) int {
	return cmp.Or(cmp.Compare(o.Severity, c.Severity), cmp.Compare(c.Model, o.Model), cmp.Compare(c.Code, o.Code))
}
