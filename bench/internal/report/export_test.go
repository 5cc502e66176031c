package report

// What the tests of the report look at from outside.
var (
	Quantity  = quantity
	Pair      = pair
	Ratio     = ratio
	Percent   = percent
	PerSecond = perSecond
	Text      = tableText
)
