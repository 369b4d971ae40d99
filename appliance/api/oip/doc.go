// Package oip has what the Open Inference Protocol (KServe's and Triton's v2) means here, whatever carries it: its datatypes, metadata, parameters,
// raw tensors, statistics and model repository. Package oiprest below it is the protocol over HTTP, and package rpc has it over gRPC.
//
// The protocol knows no signatures: a request is for the one that its parameter "signature_name" names, else for serving_default, else for the only one
// that there is. It knows no labels either: a version that is no number is taken for a label.
//
// Invariants:
//  1. Raw tensors share the memory of the request that they came in.
//  2. What may grow with what a stranger sends has a bound: parts of a request, its elements, its text in errors.
//  3. Errors are *inference.Error and have their texts from here, so that both transports say the same.
package oip
