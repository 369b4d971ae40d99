// access.go: may this user make files in a directory?
package config

import "golang.org/x/sys/unix"

func mayWrite(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }
