// Package systemtest boots a Debian root under a real systemd as PID 1, in namespaces of its own, and holds an installed inferd to its word
// there: its tests are what `make test-system` runs. It is for tests only.
//
// Invariants:
//  1. Nothing outside a Machine changes: it has its own processes, mounts, network, users of its own /etc, and its own child in each cgroup
//     hierarchy. What is below it is a root that is made once and never written again; each Machine writes into a layer of its own.
//  2. What a Machine has written stays over Kill and Boot, as a disk's contents stay over a power cut, and is gone with the test.
//  3. Where a Machine is not to be had (no root, no mmdebstrap, no namespaces), Unavailable says which, in a sentence.
//
// The wall clock and the kernel are the machine's own: a jump of the clock is tried in a virtual machine (vm.sh), never here.
package systemtest
