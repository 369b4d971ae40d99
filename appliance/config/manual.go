// manual.go: what the manual pages say of the settings beyond the keys themselves.
package config

// Effect is when a changed value of the key counts, "" for a section.
func (k Key) Effect() Effect {
	if k.Section {
		return ""
	}
	return effectOf(k.Path)
}

// ServingFlag is a flag of TensorFlow Serving's command line and what it means here.
type ServingFlag struct {
	Name, Kind, Doc string
}

// ServingFlags has every flag of TensorFlow Serving, in its own order.
func ServingFlags() []ServingFlag {
	list := make([]ServingFlag, 0, len(servingFlags))
	for _, f := range servingFlags {
		list = append(list, ServingFlag{f.name, string(f.kind), f.doc()})
	}
	return list
}
