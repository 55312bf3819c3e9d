// mesos-containerizer launch: the agent starts every executor through it.
#include <cstdio>
#include <cstring>

#include "program.hpp"

using mesos::internal::slave::MesosContainerizerLaunch;

namespace {
// Where MesosContainerizerLaunch keeps its name, its flags, and their FlagsBase (a virtual base of them).
constexpr size_t kName = 8, kFlags = 0xe0, kFlagsBase = 0x168;
}  // namespace

int main(int argc, char** argv) {
  const char* command = argc > 1 ? argv[1] : "";
  if (strcmp(command, "--version") == 0) {
    puts("mesos 1.11.0");
    return 0;
  }
  if (strcmp(command, "--help") == 0) {
    puts("Usage: mesos-containerizer launch [flags]\n\nThe agent calls it to start an executor in its container.");
    return 0;
  }
  if (strcmp(command, "launch") != 0) fail("only the subcommand 'launch' is in this build of Mesos (see --help)");
  // Its constructor is not exported.
  char* self = static_cast<char*>(calloc(1, kRoom));
  *reinterpret_cast<void**>(self) = _ZTVN5mesos8internal5slave24MesosContainerizerLaunchE + 2 * sizeof(void*);
  new (self + kName) std::string("launch");
  new (self + kFlags) MesosContainerizerLaunch::Flags();
  auto* flags = reinterpret_cast<flags::FlagsBase*>(self + kFlagsBase);
  auto loaded = flags->load(std::string("MESOS_CONTAINERIZER_"), argc - 1, argv + 1, false, false);
  if (!loaded.data.some()) fail(loaded.error.t.message);
  return reinterpret_cast<MesosContainerizerLaunch*>(self)->execute();
}
