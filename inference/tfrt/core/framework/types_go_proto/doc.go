// Package types_go_proto is empty: the binding imports it for tidy dependency lists only.
package types_go_proto
