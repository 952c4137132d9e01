variable "account_id" {
  description = "AWS account, twelve digits."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id is \"${var.account_id}\": give the twelve digits of the AWS account."
  }
}

variable "alarm_emails" {
  description = "E-mail addresses that receive the alarms; each must confirm its subscription."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.alarm_emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", address))])
    error_message = "alarm_emails holds something that is not an e-mail address: ${join(", ", var.alarm_emails)}."
  }
}

variable "dead_letter_queue_name" {
  description = "Name of the function's dead-letter queue. Required with function_name."
  type        = string
  default     = null
}

variable "endpoint_name" {
  description = "Name of the endpoint to watch; null watches none. Pass the plain name, not the endpoint module's output: the alarms must exist before the endpoint."
  type        = string
  default     = null
}

variable "function_log_group_name" {
  description = "Name of the function's log group. Required with function_name."
  type        = string
  default     = null
}

variable "function_name" {
  description = "Name of the Lambda function to watch; null watches none."
  type        = string
  default     = null

  validation {
    condition     = var.function_name == null ? true : var.function_log_group_name != null && var.dead_letter_queue_name != null
    error_message = "function_name is set without function_log_group_name or dead_letter_queue_name; set all three."
  }
}

variable "kms_key_arn" {
  description = "ARN of the KMS key for topic and log groups. Its policy must admit cloudwatch.amazonaws.com, or alarms are dropped in silence."
  type        = string
}

variable "log_retention_days" {
  description = "How long log lines are kept, in days. One of CloudWatch's own values; 0 keeps them for ever."
  type        = number

  validation {
    condition     = contains([0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is ${var.log_retention_days}; CloudWatch accepts 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 and 3653 days, or 0 for no expiry."
  }
}

variable "model_latency_p99_milliseconds" {
  description = "Model latency that 99 of 100 requests should stay below, in milliseconds."
  type        = number
  default     = 1000

  validation {
    condition     = var.model_latency_p99_milliseconds > 0
    error_message = "model_latency_p99_milliseconds is ${var.model_latency_p99_milliseconds}; give a number of milliseconds above 0."
  }
}

variable "name" {
  description = "Prefix of the alarms and the topic, and namespace of the metrics."
  type        = string
}

variable "partition" {
  description = "AWS partition: aws, aws-cn or aws-us-gov."
  type        = string
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "sagemaker_log_groups" {
  description = "Whether to own the account-wide log groups of SageMaker's notebooks and training jobs. Leave false where they exist already, or import them first."
  type        = bool
  default     = false
}

variable "unusual_activity_threshold" {
  description = "Denied picture fetches, or access denials, within 5 minutes that raise the alarm."
  type        = number
  default     = 1

  validation {
    condition     = var.unusual_activity_threshold >= 1
    error_message = "unusual_activity_threshold is ${var.unusual_activity_threshold}; give 1 or more."
  }
}

variable "variant_name" {
  description = "Production variant of the endpoint to watch."
  type        = string
  default     = "AllTraffic"
}
