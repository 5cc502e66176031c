package discoverytest

// Rules returns the names of the rules that Test checks on a network.
func Rules(n Network) (names []string) {
	for _, r := range rules {
		if r.holds(n) {
			names = append(names, r.name)
		}
	}
	return names
}

// Check checks one rule.
func Check(name string, n Network) error {
	for _, r := range rules {
		if r.name == name {
			return r.run(n)
		}
	}
	panic("no rule " + name)
}
