package mdns_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// programName is set in the environment of children: the test binary is also each of the programs
// that run on the hosts of a lab.
const programName = "GRAVBUS_MDNS_PROGRAM"

// programs are added to by the tests that need them.
var programs = make(map[string]func())

func TestMain(m *testing.M) {
	if program := programs[os.Getenv(programName)]; program != nil {
		program()
		return
	}
	goleak.VerifyTestMain(m)
}
