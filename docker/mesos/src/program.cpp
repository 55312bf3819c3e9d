#include "program.hpp"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <unistd.h>

using std::string;

namespace {
constexpr const char* kVersion = "1.11.0";

string trimmed(const string& text) {
  const char* blanks = " \t\r\n";
  size_t first = text.find_first_not_of(blanks);
  return first == string::npos ? "" : text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

// Output of --ip_discovery_command and its like.
string outputOf(const string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) fail("cannot run '" + command + "': " + strerror(errno));
  string output;
  for (int c; (c = fgetc(pipe)) != EOF;) output += static_cast<char>(c);
  if (pclose(pipe) != 0) fail("'" + command + "' failed");
  return trimmed(output);
}

void setVariable(const char* name, const Option<string>& value) {
  if (value.some()) setenv(name, value.t.c_str(), 1);
}

// A daemon of Mesos may be killed at any moment and keeps its state on disk accordingly: nothing is to be done first.
void onTermination(int signal) {
  constexpr char terminated[] = "SIGTERM received, ending\n", interrupted[] = "SIGINT received, ending\n";
  bool term = signal == SIGTERM;
  (void)!write(STDERR_FILENO, term ? terminated : interrupted, (term ? sizeof terminated : sizeof interrupted) - 1);
  _exit(0);
}
}  // namespace

void fail(const string& message) {
  string line = trimmed(message);
  for (char& c : line) if (c == '\n') c = ' ';
  fprintf(stderr, "%s: %s\n", program_invocation_short_name, line.c_str());
  fflush(stderr);
  _exit(1);  // libprocess's threads may be running: no destructors
}

Values::Values(flags::FlagsBase& flags, int argc, char** argv,
               std::initializer_list<std::pair<const char*, const char*>> unsupported)
    : flags_(flags) {
  for (auto& entry : flags_.by_name) {
    const string& name = entry.first;
    auto load = entry.second.load;
    entry.second.load = [this, name, load](flags::FlagsBase* base, const string& value) {
      raw_[name] = value;
      return load(base, value);
    };
  }
  // Before all errors: `--help` next to a missing required flag is a question, not a mistake.
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0) {
      flags_.program_name = program_invocation_short_name;
      printf("%s\n", flags_.usage(Option<string>()).c_str());
      exit(0);
    }
    if (strcmp(argv[i], "--version") == 0) {
      printf("mesos %s\n", kVersion);
      exit(0);
    }
    if (strncmp(argv[i], "--", 2) != 0) fail(string("unexpected argument '") + argv[i] + "' (see --help)");
  }
  auto loaded = flags_.load(string("MESOS_"), argc, argv, false, false);
  if (!loaded.data.some()) fail(trimmed(loaded.error.t.message) + " (see --help)");
  for (const flags::Warning& warning : loaded.data.t.warnings) {
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, warning.message.c_str());
  }
  for (const auto& entry : unsupported) {
    if (!raw(entry.first).empty() && get(entry.first).some() && required(entry.first) != "false") {
      fail(string("--") + entry.first + " is not in this build of Mesos: " + entry.second);
    }
  }
}

Option<string> Values::get(const string& name) const {
  auto found = flags_.by_name.find(name);
  if (found == flags_.by_name.end()) fail("no flag --" + name + " in this library");
  return found->second.stringify(flags_);
}

string Values::required(const string& name) const {
  Option<string> value = get(name);
  if (!value.some()) fail("--" + name + " is required (see --help)");
  return value.t;
}

Duration Values::duration(const string& name) const { return orFail(Duration::parse(required(name)), "--" + name); }

string Values::raw(const string& name) const {
  auto found = raw_.find(name);
  return found == raw_.end() ? "" : found->second;
}

void startLibprocess(const string& argv0, const Values& values, const mesos::internal::logging::Flags& logging,
                     const string& id, const string& realm) {
  using mesos::modules::ModuleManager;
  Option<string> modulesDir = values.get("modules_dir"), hooks = values.get("hooks");
  if (modulesDir.some()) orFail(ModuleManager::load(modulesDir.t), "--modules_dir");
  if (string modules = values.raw("modules"); !modules.empty()) {
    auto* manifest = keep([&] { return flags::fetch<mesos::Modules>(modules); });
    orFail(ModuleManager::loadManifest(manifest->data.t), "--modules");
  }
  if (hooks.some()) orFail(mesos::internal::HookManager::initialize(hooks.t), "--hooks");

  Option<string> discover = values.get("ip_discovery_command"), ip = values.get("ip");
  if (discover.some() && ip.some()) fail("only one of --ip and --ip_discovery_command may be given");
  setVariable("LIBPROCESS_IP", discover.some() ? Option<string>(outputOf(discover.t)) : ip);
  setVariable("LIBPROCESS_PORT", values.get("port"));
  setVariable("LIBPROCESS_ADVERTISE_IP", values.get("advertise_ip"));
  setVariable("LIBPROCESS_ADVERTISE_PORT", values.get("advertise_port"));
  if (!process::initialize(id, realm + "-readwrite", realm + "-readonly")) fail("libprocess was started before");

  mesos::internal::logging::initialize(argv0, true, logging);
  auto* version = make<mesos::internal::VersionProcess>();
  keep([&] { return process::spawn(&upcast<process::ProcessBase>(version), false); });
}

Option<mesos::Authorizer*> authorizer(const Values& values, const string& flag) {
  string name = values.required(flag);
  if (name.find(',') != string::npos) fail("--" + flag + ": only one authorizer is supported");
  if (name != "local") return orFail(mesos::Authorizer::create(name), "--" + flag);
  string acls = values.raw("acls");
  if (acls.empty()) return {};
  auto* parsed = keep([&] { return flags::fetch<mesos::ACLs>(acls); });
  return orFail(mesos::Authorizer::create(parsed->data.t), "--acls");
}

void run(process::ProcessBase& process) {
  struct sigaction action {};
  action.sa_handler = onTermination;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  auto* pid = keep([&] { return process::spawn(&process, false); });
  process::wait(*pid, Duration{-1000000000});
  _exit(0);
}
