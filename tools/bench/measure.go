// measure.go: the short names of what tools/measure gives.
package main

import "github.com/inferd/inferd/tools/measure"

type caller = measure.Caller

var (
	drive       = measure.Drive
	httpCaller  = measure.HTTPCaller
	grpcCaller  = measure.GRPCCaller
	lightCaller = measure.LightCaller
	dialLight   = measure.DialLight
	ask         = measure.Ask
	pairs       = measure.Pairs
	median      = measure.Median
	treeCPU     = measure.TreeCPU
	treePSS     = measure.TreePSS
	procBytes   = measure.ProcBytes
	children    = measure.Children
)
