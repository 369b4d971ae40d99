// doc.go: what the package promises.

// Package admission decides, before work is done, whether there is memory and time for it.
package admission
