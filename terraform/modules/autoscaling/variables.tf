variable "endpoint_arn" {
  description = "ARN of the endpoint; a replaced endpoint is registered anew."
  type        = string
}

variable "endpoint_name" {
  description = "Name of the endpoint. Pass the endpoint module's output, so that scaling ends before the endpoint does."
  type        = string
}

variable "instance_type" {
  description = "Instance type of the variant, such as ml.m5.xlarge."
  type        = string

  validation {
    condition     = !can(regex("^ml\\.t[0-9]", var.instance_type))
    error_message = "instance_type is ${var.instance_type}: SageMaker does not autoscale burstable (ml.t*) instances. Use a type of another family, such as ml.m5.xlarge, for the endpoint."
  }
}

variable "max_capacity" {
  description = "Largest number of instances."
  type        = number
}

variable "min_capacity" {
  description = "Smallest number of instances."
  type        = number

  validation {
    condition     = var.min_capacity >= 1
    error_message = "min_capacity is ${var.min_capacity}; a real-time endpoint keeps at least 1 instance."
  }

  validation {
    condition     = var.min_capacity <= var.max_capacity
    error_message = "min_capacity (${var.min_capacity}) is above max_capacity (${var.max_capacity}). Lower the minimum or raise the maximum."
  }
}

variable "scale_in_cooldown_seconds" {
  description = "Pause after a scale-in before the next one, in seconds."
  type        = number

  validation {
    condition     = var.scale_in_cooldown_seconds >= 0
    error_message = "scale_in_cooldown_seconds is ${var.scale_in_cooldown_seconds}; give 0 seconds or more."
  }
}

variable "scale_out_cooldown_seconds" {
  description = "Pause after a scale-out before a further one of the same size, in seconds."
  type        = number

  validation {
    condition     = var.scale_out_cooldown_seconds >= 0
    error_message = "scale_out_cooldown_seconds is ${var.scale_out_cooldown_seconds}; give 0 seconds or more."
  }
}

variable "scheduled_actions" {
  description = "Minimum and maximum from a time on, by the action's name. Schedules: at(yyyy-mm-ddThh:mm:ss) or cron(minutes hours day-of-month month day-of-week year), in the time zone."
  type = map(object({
    schedule     = string
    timezone     = optional(string, "UTC")
    min_capacity = number
    max_capacity = number
  }))
  default = {}
}

variable "target_invocations_per_minute" {
  description = "Invocations a minute and instance that scaling holds on to."
  type        = number

  validation {
    condition     = var.target_invocations_per_minute > 0
    error_message = "target_invocations_per_minute is ${var.target_invocations_per_minute}; give a number above 0."
  }
}

variable "variant_name" {
  description = "Name of the production variant to scale."
  type        = string
}
