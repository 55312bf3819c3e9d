// What our programs use of libmesos 1.11.0, declared anew: the packaged library comes without headers.
//
// Every definition is in the library. It was compiled by GCC 5.4 with the C++11 std::string ABI, so that a current g++
// links against it. Two rules keep the declarations safe:
// - A type that crosses the boundary by value has its exact layout here (Option, Try, Duration, the flags).
// - Any other object is only ever constructed in zeroed memory that is larger than it (`make`) and used by address;
//   its declared size means nothing. A class with virtual bases must still declare data members in those bases, or
//   the compiler takes them for "nearly empty" and computes a wrong upcast.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <utility>
#include <vector>

// --- stout ------------------------------------------------------------------------------------------------------

template <typename T> struct Option {
  enum State { SOME, NONE } state = NONE;
  union { T t; };
  Option() {}
  Option(const T& value) : state(SOME) { new (&t) T(value); }
  Option(const Option& that) : state(that.state) { if (state == SOME) new (&t) T(that.t); }
  Option& operator=(const Option&) = delete;
  ~Option() { if (state == SOME) t.~T(); }
  bool some() const { return state == SOME; }
};
struct Nothing {};
struct Error { std::string message; };
template <typename T, typename E = Error> struct Try {
  Option<T> data;
  Option<E> error;
};
struct Duration {
  int64_t nanoseconds;
  static Try<Duration> parse(const std::string&);
};

namespace flags {
struct FlagsBase;
struct Name { std::string value; bool deprecated = false; };
struct Flag {
  Name name;
  Option<Name> alias;
  Option<Name> loaded_name;  // some: it was given, on the command line or in the environment
  std::string help;
  bool boolean, required;
  std::function<Try<Nothing>(FlagsBase*, const std::string&)> load;
  std::function<Option<std::string>(const FlagsBase&)> stringify;
  std::function<Option<Error>(const FlagsBase&)> validate;
};
struct Warning { std::string message; };
struct Warnings { std::vector<Warning> warnings; };
struct FlagsBase {
  virtual ~FlagsBase();
  Try<Warnings> load(const Option<std::string>& prefix, int argc, const char* const* argv, bool unknowns,
                     bool duplicates);
  std::string usage(const Option<std::string>& message) const;

  bool help;
  std::string program_name;
  Option<std::string> usage_message;
  std::map<std::string, Flag> by_name;
  std::map<std::string, std::string> aliases;
};
static_assert(sizeof(Flag) == 272 && sizeof(FlagsBase) == 184, "the library's layout");
template <typename T> Try<T> fetch(const std::string& value);
}  // namespace flags

// --- libprocess -------------------------------------------------------------------------------------------------

namespace process {
struct UPID { char body[256]; UPID(const UPID&); ~UPID(); bool operator<(const UPID&) const; };
struct Event;
struct MessageEvent;
struct DispatchEvent;
struct HttpEvent;
struct ExitedEvent;
struct TerminateEvent;
// All virtual functions in their order, for a class of our own that derives from it.
struct ProcessBase {
  explicit ProcessBase(const std::string& id = "");
  virtual ~ProcessBase();
  virtual void consume(MessageEvent&&);
  virtual void consume(DispatchEvent&&);
  virtual void consume(HttpEvent&&);
  virtual void consume(ExitedEvent&&);
  virtual void consume(TerminateEvent&&);
  virtual void serve(Event&&);
  virtual void initialize();
  virtual void finalize();
  virtual void exited(const UPID&);
  virtual void lost(const UPID&);
  char body[64];
};
template <typename T> struct Process : virtual ProcessBase { ~Process() {} };
// Shares a pointer to the object, not the object.
template <typename T> struct Owned {
  Owned() {}
  explicit Owned(T* object) : data(new T*(object), [](void*) {}) {}
  std::shared_ptr<void> data;
};
template <typename T> struct Future { std::shared_ptr<void> data; };
struct RateLimiter { RateLimiter(int permits, const Duration&); char body[256]; };

bool initialize(const Option<std::string>& delegate, const Option<std::string>& readwriteRealm,
                const Option<std::string>& readonlyRealm);
UPID spawn(ProcessBase*, bool manage);
bool wait(const UPID&, const Duration&);

namespace network {
namespace unix { struct Address { char body[256]; }; }
namespace internal { template <typename Address> struct Socket { std::shared_ptr<void> data; }; }
}  // namespace network
}  // namespace process
template <typename T> struct ProtobufProcess : process::Process<T> { ~ProtobufProcess() {} };

namespace zookeeper {
struct Authentication { std::string scheme, credentials; };
struct URL {
  Option<Authentication> authentication;
  std::string servers, path;
  static Try<URL> parse(const std::string&);
};
}  // namespace zookeeper

// --- mesos ------------------------------------------------------------------------------------------------------

namespace mesos {
struct MasterInfo { MasterInfo(const MasterInfo&); ~MasterInfo(); alignas(8) char body[4096]; };
struct ACLs { ACLs(const ACLs&); ~ACLs(); alignas(8) char body[4096]; };
struct Modules { Modules(const Modules&); ~Modules(); alignas(8) char body[4096]; };
struct Authorizer {
  static Try<Authorizer*> create(const ACLs&);
  static Try<Authorizer*> create(const std::string& name);
};
struct SecretGenerator;
struct SecretResolver { static Try<SecretResolver*> create(const Option<std::string>& module); };

namespace modules {
struct ModuleManager {
  static Try<Nothing> load(const std::string& directory);
  static Try<Nothing> loadManifest(const Modules&);
};
}  // namespace modules

namespace allocator { struct Allocator; }
namespace log {
struct Log {
  Log(int quorum, const std::string& path, const std::set<process::UPID>& others, bool autoInitialize,
      const Option<std::string>& metricsPrefix);
  Log(int quorum, const std::string& path, const std::string& servers, const Duration& timeout,
      const std::string& znode, const Option<zookeeper::Authentication>&, bool autoInitialize,
      const Option<std::string>& metricsPrefix);
  char body[4096];
};
}  // namespace log
namespace state {
struct Storage { virtual ~Storage() {} };
struct InMemoryStorage : Storage { InMemoryStorage(); char body[4096]; };
struct LogStorage : Storage { LogStorage(log::Log*, size_t diffsBetweenSnapshots); char body[4096]; };
struct State { explicit State(Storage* s) : storage(s) {} virtual ~State() {} Storage* storage; };
}  // namespace state
namespace slave {
struct ResourceEstimator { static Try<ResourceEstimator*> create(const Option<std::string>& module); };
struct QoSController { static Try<QoSController*> create(const Option<std::string>& module); };
}  // namespace slave
namespace master {
namespace contender {
struct MasterContender {
  virtual ~MasterContender();
  virtual void initialize(const MasterInfo&) = 0;
  virtual process::Future<process::Future<Nothing>> contend() = 0;
  static Try<MasterContender*> create(const Option<std::string>& zk, const Option<std::string>& module,
                                      const Option<Duration>& sessionTimeout);
};
}  // namespace contender
namespace detector {
struct MasterDetector {
  static Try<MasterDetector*> create(const Option<std::string>& zk, const Option<std::string>& module,
                                     const Option<Duration>& sessionTimeout);
};
struct StandaloneMasterDetector { void appoint(const Option<MasterInfo>&); };
}  // namespace detector
}  // namespace master

namespace internal {
struct Files { Files(const Option<std::string>& realm, const Option<Authorizer*>&); char body[4096]; };
// Its constructor and virtual table are not in the library, but the methods that work on the list are.
struct PendingFutureTrackerProcess : process::Process<PendingFutureTrackerProcess> {
  PendingFutureTrackerProcess() : process::ProcessBase("pending-future-tracker") {}
  std::list<char> pending;  // in truth of FutureMetadata; an empty list is the same
};
struct PendingFutureTracker { process::Owned<PendingFutureTrackerProcess> process; };
struct VersionProcess : process::Process<VersionProcess> { VersionProcess(); ~VersionProcess(); };
struct HookManager { static Try<Nothing> initialize(const std::string& names); };

namespace logging {
// Complete, for initialize() takes it by value: what lies between the virtual table and the virtual base counts.
struct Flags : virtual flags::FlagsBase {
  Flags();
  ~Flags();
  bool quiet;
  std::string logging_level;
  Option<std::string> log_dir;
  int logbufsecs;
  bool initialize_driver_logging;
  Option<std::string> external_log_file;
};
void initialize(const std::string& argv0, bool installFailureSignalHandler, const Option<Flags>&);
}  // namespace logging

namespace master {
struct Flags : virtual logging::Flags { Flags(); ~Flags(); };
namespace allocator {
struct DRFSorter;
template <typename R, typename F> struct HierarchicalAllocatorProcess;
template <typename P> struct MesosAllocator { MesosAllocator(); char body[4096]; };
using HierarchicalDRFAllocator = MesosAllocator<HierarchicalAllocatorProcess<DRFSorter, DRFSorter>>;
}  // namespace allocator
struct Registrar { Registrar(const Flags&, state::State*, const Option<std::string>& realm); char body[4096]; };
struct Master : ProtobufProcess<Master> {
  Master(mesos::allocator::Allocator*, Registrar*, Files*, mesos::master::contender::MasterContender*,
         mesos::master::detector::MasterDetector*, const Option<Authorizer*>&,
         const Option<std::shared_ptr<process::RateLimiter>>& agentRemovalLimiter, const Flags&);
};
}  // namespace master

namespace slave {
struct Flags : virtual logging::Flags { Flags(); ~Flags(); };
struct Fetcher { explicit Fetcher(const Flags&); char body[4096]; };
struct GarbageCollector { explicit GarbageCollector(const std::string& workDir); char body[4096]; };
struct TaskStatusUpdateManager { explicit TaskStatusUpdateManager(const Flags&); char body[4096]; };
struct VolumeGidManager { static Try<VolumeGidManager*> create(const Flags&); };
struct CSIServer;
struct Containerizer {
  static Try<Containerizer*> create(const Flags&, bool local, Fetcher*, GarbageCollector*, SecretResolver*,
                                    VolumeGidManager*, PendingFutureTracker*, CSIServer*);
};
struct Slave : ProtobufProcess<Slave> {
  Slave(const std::string& id, const Flags&, mesos::master::detector::MasterDetector*, Containerizer*, Files*,
        GarbageCollector*, TaskStatusUpdateManager*, mesos::slave::ResourceEstimator*, mesos::slave::QoSController*,
        SecretGenerator*, VolumeGidManager*, PendingFutureTracker*, process::Owned<CSIServer>&&,
        const Option<process::network::internal::Socket<process::network::unix::Address>>&,
        const Option<Authorizer*>&);
};
// `mesos-containerizer launch`: a Subcommand (virtual table, name, FlagsBase) followed by its own Flags.
struct MesosContainerizerLaunch {
  struct Flags { Flags(); };
  int execute();
};
}  // namespace slave
}  // namespace internal
}  // namespace mesos
extern "C" char _ZTVN5mesos8internal5slave24MesosContainerizerLaunchE[];

// --- constructing and addressing what we do not know the size of ----------------------------------------------------

constexpr size_t kRoom = 1 << 16;

// A T in zeroed memory with room to spare; never freed, for daemons end by exiting.
template <typename T, typename... Arguments> T* make(Arguments&&... arguments) {
  return new (calloc(1, sizeof(T) + kRoom)) T(std::forward<Arguments>(arguments)...);
}

// What `call()` returns, of a type whose size we do not know, in zeroed memory with room to spare.
template <typename Call> auto* keep(Call&& call) {
  using T = decltype(call());
  return new (calloc(1, sizeof(T) + kRoom)) T(call());
}

// Upcast to a virtual base through the object's own virtual table; were it inlined after a construction, the compiler
// would take the offset that it computed from the declared size.
template <typename Base, typename T> __attribute__((noinline)) Base& upcast(T* object) {
  asm volatile("" : "+r"(object) : : "memory");
  return *object;
}
