module github.com/gravbus/gravbus

go 1.26

require (
	github.com/google/uuid v1.6.0
	github.com/sirupsen/logrus v1.10.2
	go.uber.org/goleak v1.3.0
	pgregory.net/rapid v1.3.0
)

require golang.org/x/sys v0.13.0 // indirect
