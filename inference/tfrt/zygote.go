// zygote.go: says that zygote.c is part of the package. It has nothing to call: it acts in a constructor, before Go runs.
package tfrt

/*
#include "zygote.h"
*/
import "C"
