// Page faults of a mapping, handed to this process: userfaultfd(2), for pages of a memory that are missing. Any thread.
//
// Invariants:
// - A page is in place, whole, before any thread sees it. A page that is there already stays as it is.
// - Closing it ends the service: whoever waits in a fault continues, and finds zeros where no page is.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace livesnap {

class UserFault {
 public:
  // Whose faults it gets. A descriptor for user mode needs no privilege. It cannot serve a guest: KVM faults in kernel mode.
  enum class Faults { kUserMode, kAll };
  // Null: errno has the reason.
  static std::unique_ptr<UserFault> open(Faults faults);
  ~UserFault();
  UserFault(const UserFault&) = delete;
  UserFault& operator=(const UserFault&) = delete;

  // Takes the faults of whole pages of a mapping. 0 or an errno value.
  int add(uint8_t* base, size_t length);
  // Gives them back. Whoever waits in one continues.
  void remove(uint8_t* base, size_t length);
  // Puts pages in place, and lets those continue that wait for them. 0 or an errno value.
  int copy(uint8_t* to, const uint8_t* from, size_t length);
  int zero(uint8_t* to, size_t length);
  // The page of the next fault; false: there is none at the moment.
  bool next(uint8_t** page);
  // Readable while faults wait.
  int fd() const { return fd_; }

 private:
  explicit UserFault(int fd) : fd_(fd) {}
  template <class Place>
  int placeAll(uint8_t* to, size_t length, Place place);
  const int fd_;
};

}  // namespace livesnap
