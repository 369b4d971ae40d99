// Package tensor_shape_go_proto is empty: the binding imports it for tidy dependency lists only.
package tensor_shape_go_proto
