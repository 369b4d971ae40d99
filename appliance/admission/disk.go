// disk.go: the floor of free disk space below which nothing durable is begun.
package admission

import (
	"cmp"
	"fmt"
)

// maxFloor bounds the floor that is chosen for a file system.
const maxFloor = 256 << 20

// Disk is the file system of the state directory.
type Disk struct {
	Free, Whole int64
	Floor       int64
}

// NewDisk has the floor as configured, else a twentieth of the file system and at most 256 MiB.
func NewDisk(free, whole, configured int64) Disk {
	return Disk{Free: free, Whole: whole, Floor: cmp.Or(configured, min(whole/20, maxFloor))}
}

// Refuses reports whether less than the floor is free. A file system of no size is one that could not be asked.
func (d Disk) Refuses() bool { return d.Whole > 0 && d.Free < d.Floor }

// String is the fault for an operator.
func (d Disk) String() string {
	return fmt.Sprintf("%s are free where the state is kept, less than the floor of %s (state.disk_floor)", megabytes(d.Free), megabytes(d.Floor))
}

// Report is the disk's part of the Report.
func (d Disk) Report() DiskReport {
	return DiskReport{Free: d.Free, Floor: d.Floor, Refuses: d.Refuses()}
}
