mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  account_id         = "123456789012"
  artifact_bucket    = "pictures-123456789012-us-east-1-artifacts"
  hosting_image_uri  = "123456789012.dkr.ecr.us-east-1.amazonaws.com/own/hosting@sha256:abc"
  name               = "pictures"
  partition          = "aws"
  region             = "us-east-1"
  training_image_uri = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6.0"
}

run "roles_are_named_and_known_before_they_exist" {
  command = plan

  module {
    source = "./modules/iam"
  }

  assert {
    condition = output.role_arns == {
      builder   = "arn:aws:iam::123456789012:role/pictures-builder"
      flow_logs = "arn:aws:iam::123456789012:role/pictures-flow-logs"
      hosting   = "arn:aws:iam::123456789012:role/pictures-hosting"
      lambda    = "arn:aws:iam::123456789012:role/pictures-lambda"
      notebook  = "arn:aws:iam::123456789012:role/pictures-notebook"
      trainer   = "arn:aws:iam::123456789012:role/pictures-trainer"
      training  = "arn:aws:iam::123456789012:role/pictures-training"
    }
    error_message = "Role ARNs are built from names."
  }

  assert {
    condition     = output.trainer_instance_profile == "pictures-trainer"
    error_message = "The box's profile carries the stack's name."
  }

  assert {
    condition     = alltrue([for role in [aws_iam_role.builder, aws_iam_role.flow_logs, aws_iam_role.hosting, aws_iam_role.lambda, aws_iam_role.notebook, aws_iam_role.trainer, aws_iam_role.training] : role.permissions_boundary == null])
    error_message = "No boundary unless one is given."
  }
}

run "a_boundary_stands_on_every_role" {
  command = plan

  module {
    source = "./modules/iam"
  }

  variables {
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
  }

  assert {
    condition = alltrue([
      for role in [aws_iam_role.builder, aws_iam_role.flow_logs, aws_iam_role.hosting, aws_iam_role.lambda, aws_iam_role.notebook, aws_iam_role.trainer, aws_iam_role.training] :
      role.permissions_boundary == "arn:aws:iam::123456789012:policy/boundary"
    ])
    error_message = "A role without the boundary."
  }
}

run "an_image_is_one_repository" {
  command = plan

  module {
    source = "./modules/iam"
  }

  assert {
    condition     = strcontains(aws_iam_role_policy.hosting.policy, "\"arn:aws:ecr:us-east-1:123456789012:repository/own/hosting\"")
    error_message = "The hosting role pulls its own image, whether named by tag or digest."
  }

  assert {
    condition     = strcontains(aws_iam_role_policy.training.policy, "\"arn:aws:ecr:us-east-1:763104351884:repository/pytorch-training\"")
    error_message = "The training role pulls AWS's image from AWS's account."
  }
}

run "refuses_wrong_values" {
  command = plan

  module {
    source = "./modules/iam"
  }

  variables {
    account_id               = "me"
    hosting_image_uri        = "docker.io/library/python:3.11"
    name                     = "*"
    permissions_boundary_arn = "boundary"
    training_image_uri       = "pytorch"
  }

  expect_failures = [
    var.account_id, var.hosting_image_uri, var.name, var.permissions_boundary_arn, var.training_image_uri,
  ]
}
