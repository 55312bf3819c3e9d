// mesos-master: standing alone, or electing a leader among several through ZooKeeper (--zk, --quorum).
#include <filesystem>

#include "program.hpp"

using namespace mesos;
using mesos::internal::Files;
using mesos::internal::master::Master;
using mesos::internal::master::Registrar;
using mesos::master::contender::MasterContender;
using mesos::master::detector::MasterDetector;
using mesos::master::detector::StandaloneMasterDetector;
using std::string;

namespace {
const string kRealm = "mesos-master";

// A contender that wins as soon as the master has made up its MasterInfo: the one moment at which we see it.
struct OnlyContender : MasterContender {
  OnlyContender(MasterContender* standalone, StandaloneMasterDetector* detector)
      : standalone_(standalone), detector_(detector) {}
  void initialize(const MasterInfo& info) override {
    standalone_->initialize(info);
    auto* some = static_cast<Option<MasterInfo>*>(calloc(1, sizeof(Option<MasterInfo>)));
    new (&some->t) MasterInfo(info);
    detector_->appoint(*some);
  }
  process::Future<process::Future<Nothing>> contend() override { return standalone_->contend(); }

  MasterContender* standalone_;
  StandaloneMasterDetector* detector_;
};

log::Log* replicatedLog(const Values& values, const Option<string>& zk) {
  string work = values.required("work_dir");
  std::error_code error;
  std::filesystem::create_directories(work, error);
  if (error) fail("cannot create --work_dir " + work + ": " + error.message());
  string path = work + "/replicated_log";
  bool initialize = values.on("log_auto_initialize");
  if (!zk.some()) return make<log::Log>(1, path, std::set<process::UPID>(), initialize, string("registrar/"));
  zookeeper::URL url = orFail(zookeeper::URL::parse(zk.t), "--zk");
  if (!values.get("quorum").some()) fail("--quorum is required with --zk (see --help)");
  int quorum = std::stoi(values.required("quorum"));
  return make<log::Log>(quorum, path, url.servers, values.duration("zk_session_timeout"), url.path + "/log_replicas",
                        url.authentication, initialize, string("registrar/"));
}

state::Storage* storage(const Values& values, const Option<string>& zk) {
  string registry = values.required("registry");
  if (registry == "in_memory") {
    if (zk.some()) fail("--registry=in_memory cannot be used with --zk");
    return make<state::InMemoryStorage>();
  }
  if (registry != "replicated_log") fail("--registry: '" + registry + "' is not supported");
  return make<state::LogStorage>(replicatedLog(values, zk), size_t(0));
}

// --agent_removal_rate_limit=AGENTS/DURATION
Option<std::shared_ptr<process::RateLimiter>> agentRemovalLimiter(const Values& values) {
  Option<string> limit = values.get("agent_removal_rate_limit");
  if (!limit.some()) return {};
  size_t slash = limit.t.find('/');
  int agents = atoi(limit.t.c_str());
  if (slash == string::npos || agents < 1) fail("--agent_removal_rate_limit: '" + limit.t + "' is not AGENTS/DURATION");
  Duration duration = orFail(Duration::parse(limit.t.substr(slash + 1)), "--agent_removal_rate_limit");
  return std::shared_ptr<process::RateLimiter>(make<process::RateLimiter>(agents, duration), [](auto*) {});
}
}  // namespace

int main(int argc, char** argv) {
  auto* flags = make<internal::master::Flags>();
  Values values(upcast<::flags::FlagsBase>(flags), argc, argv,
                {{"firewall_rules", "the rules are not in the packaged library"}});
  if (values.required("allocator") != "hierarchical") fail("--allocator: only 'hierarchical' is in this build of Mesos");
  startLibprocess(argv[0], values, upcast<internal::logging::Flags>(flags), "master", kRealm);

  Option<string> zk = values.get("zk"), realm = kRealm + "-readonly";
  Option<Duration> session = values.duration("zk_session_timeout");
  auto limiter = agentRemovalLimiter(values);
  Option<Authorizer*> authorizer_ = authorizer(values, "authorizers");
  auto* registrar = make<Registrar>(*flags, new state::State(storage(values, zk)), realm);
  MasterContender* contender = orFail(MasterContender::create(zk, values.get("master_contender"), session), "--zk");
  MasterDetector* detector = orFail(MasterDetector::create(zk, values.get("master_detector"), session), "--zk");
  if (!zk.some() && !values.get("master_contender").some()) {
    contender = new OnlyContender(contender, reinterpret_cast<StandaloneMasterDetector*>(detector));
  }
  auto* allocator = make<internal::master::allocator::HierarchicalDRFAllocator>();
  auto* master = make<Master>(reinterpret_cast<allocator::Allocator*>(allocator), registrar,
                              make<Files>(realm, authorizer_), contender, detector, authorizer_,
                              limiter, *flags);
  run(upcast<process::ProcessBase>(master));
}
