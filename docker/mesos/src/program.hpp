// What the programs have in common: flags, their errors, --help and --version, listening, logging and ending.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>

#include "libmesos.hpp"

// Prints one line naming the program and exits with code 1.
[[noreturn]] void fail(const std::string& message);

template <typename T> T& orFail(Try<T>& result, const std::string& what) {
  if (!result.data.some()) fail(what + ": " + result.error.t.message);
  return result.data.t;
}
template <typename T> T orFail(Try<T>&& result, const std::string& what) { return orFail(result, what); }

// Flags of one program, loaded from MESOS_ variables and the command line.
class Values {
 public:
  // Loads `flags`; prints help or the version and exits with code 0 if asked to, and fails on an unknown or malformed
  // flag, and on one of `unsupported` (name, reason) if it is switched on.
  Values(flags::FlagsBase& flags, int argc, char** argv,
         std::initializer_list<std::pair<const char*, const char*>> unsupported);

  // Value of a flag as text, its default if it was not given; none if it has neither.
  Option<std::string> get(const std::string& name) const;
  // The same for a flag that has a default, or that is required here.
  std::string required(const std::string& name) const;
  bool on(const std::string& name) const { return required(name) == "true"; }
  Duration duration(const std::string& name) const;
  // What was given on the command line or in the environment, for flags of structured types; empty if it was not.
  std::string raw(const std::string& name) const;

 private:
  flags::FlagsBase& flags_;
  std::map<std::string, std::string> raw_;
};

// Loads modules and hooks, tells libprocess where to listen (--ip, --port and their relatives), starts it and the logging.
void startLibprocess(const std::string& argv0, const Values&, const mesos::internal::logging::Flags&,
                     const std::string& id, const std::string& realm);

// The authorizer of --acls, or the one from a module that `flag` names; none: everything is allowed.
Option<mesos::Authorizer*> authorizer(const Values&, const std::string& flag);

// Spawns the process that the program is about and waits for its end, or for SIGTERM or SIGINT; returns never.
[[noreturn]] void run(process::ProcessBase&);
