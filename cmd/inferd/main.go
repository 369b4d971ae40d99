// inferd is an edge serving appliance for TensorFlow models. See `inferd help`.
package main

import (
	"os"

	"github.com/inferd/inferd/appliance"
)

func main() {
	// A worker process is this same binary; it never reaches the command line.
	if code, worker := appliance.Worker(); worker {
		os.Exit(code)
	}
	os.Exit(cli(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
