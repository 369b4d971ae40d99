// find.go: where libtensorflow may lie.
package tfrt

var libraryNames = []string{"libtensorflow_cc.so.2", "libtensorflow.so.2", "libtensorflow.so"}
