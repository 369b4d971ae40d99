// cgroup.go: a memory cgroup of its own for each worker, where systemd has delegated one to the service.
package appliance

import (
	"os"

	"github.com/inferd/inferd/inference/worker"
)

// cgroup is the one to divide, "" where there is none: the workers' memory is watched then, by which they are ended just as well, only not
// when one takes very much at a stroke. What nobody has given to a service is not divided.
func (a *Appliance) cgroup() string {
	if os.Getenv("INVOCATION_ID") == "" { // systemd's, for what it starts
		return ""
	}
	dir, why := worker.DelegatedCgroup(os.DirFS("/"))
	if dir == "" {
		a.log.Debug("workers get no cgroup of their own; their memory is watched only", "reason", why)
	}
	return dir
}

// enterCgroup makes the cgroup one that can be divided.
func (a *Appliance) enterCgroup() {
	dir := a.cgroup()
	if dir == "" {
		return
	}
	if err := worker.EnterCgroup(dir); err != nil {
		a.log.Warn("workers get no cgroup of their own; their memory is watched only", "path", dir, "err", err)
	}
}
